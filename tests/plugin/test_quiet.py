# SPDX-License-Identifier: Apache-2.0
"""A test suite that merely has the plugin installed pays nothing for it, on any platform and whatever is missing there."""

import sys
import textwrap

import pytest

from ztconform import resources

# Beside these, no module of ours but the front door, the options, the marker, the fixtures and the errors.
HEAVY = ("yaml", "jsonschema", "rich", "click", "kubernetes", "pytest_kind", "cryptography", "tomllib", "filelock")
LIGHT = {"errors", "plugin", "plugin.fixtures", "plugin.hooks", "plugin.marks", "plugin.options"}

# pytest and what it needs are imported as they are; only then the platform changes, for us.
ELSEWHERE = textwrap.dedent(
    """\
    import ctypes, faulthandler, io, subprocess, sys, tempfile
    import pytest, _pytest.terminal, _pytest.capture, _pytest.pathlib

    BLOCKED = {"kubernetes", "pytest_kind", "cryptography", "fcntl"}

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in BLOCKED:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    def refuse(*args, **kwargs):
        raise OSError("no library can be loaded here")

    for name in [name for name in sys.modules if name.partition(".")[0] in BLOCKED]:
        del sys.modules[name]
    sys.meta_path.insert(0, Blocker())
    ctypes.CDLL = ctypes.PyDLL = ctypes.cdll.LoadLibrary = refuse
    sys.platform = sys.argv[1]
    sys.exit(pytest.main(["-s", "-p", "no:cacheprovider", *sys.argv[2:]]))
    """
)
OTHERS = ("xdist", "xdist.looponfail", "randomly", "rerunfailures", "timeout", "asyncio", "pytest_cov", "pytest-kind")
OTHERS += ("hypothesispytest",)
ONLY_OURS = [f"-pno:{name}" for name in OTHERS]


@pytest.fixture
def suite(pytester):
    pytester.makeini("[pytest]\n")
    pytester.makepyfile(
        "import pytest\n@pytest.fixture\ndef cluster(): return 'mine'\n"
        "@pytest.mark.parametrize('n', [1, 2])\ndef test_plain(n, cluster): assert n\n"
    )
    return pytester


@pytest.mark.parametrize("args", [[], ["--co"], ["--help"], ["-n1"]])
def test_nothing_heavy_is_imported(suite, args):
    suite.makeconftest("import sys\ndef pytest_unconfigure(config):\n    print('\\nimported:', *sorted(sys.modules))\n")
    others = [] if "-n1" in args else ONLY_OURS
    result = suite.runpytest_subprocess("-s", *others, *args)
    assert 0 == result.ret
    imported = next(line for line in result.outlines if line.startswith("imported: ")).split()[1:]
    assert [] == sorted(set(HEAVY) & {name.partition(".")[0] for name in imported if "-n1" not in args})
    ours = {name.partition(".")[2] for name in imported if name.startswith("ztconform.")}
    if "-n1" not in args:  # the controller of xdist has to be ready for what its workers find
        assert LIGHT == ours
    assert not {name for name in ours if name.partition(".")[0] in ("proof", "lab", "kube", "stacks", "casefile")}


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
@pytest.mark.parametrize("args", [["--co", "-q"], ["--help"], ["-q"]])
def test_it_works_on_any_platform_with_nothing_of_linux_there(suite, platform, args):
    result = suite.run(sys.executable, "-c", ELSEWHERE, platform, *ONLY_OURS, *args)
    assert 0 == result.ret, result.stderr.str()
    result.stdout.fnmatch_lines(["*--ztc-stack=NAME*"] if "--help" in args else ["*2 *"])


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_the_scenarios_can_be_collected_on_any_platform(suite, platform):
    scenarios = resources.folder("scenarios")
    result = suite.run(
        sys.executable, "-c", ELSEWHERE, platform, *ONLY_OURS, "--co", "-q", "--import-mode=importlib", str(scenarios)
    )
    assert 0 == result.ret, result.stdout.str() + result.stderr.str()
    result.stdout.fnmatch_lines(["*test_segmentation.py::*"])


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_running_the_lab_elsewhere_is_one_line_and_exit_code_3(suite, platform):
    suite.makepyfile('from ztconform import requirement\n@requirement(id="N01")\ndef test_it(ztc_prove):\n    pass\n')
    result = suite.run(sys.executable, "-c", ELSEWHERE, platform, *ONLY_OURS)
    assert 3 == result.ret, result.stdout.str() + result.stderr.str()
    result.stdout.fnmatch_lines(["*could not run: *"])
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
