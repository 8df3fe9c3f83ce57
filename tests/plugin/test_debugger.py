# SPDX-License-Identifier: Apache-2.0
"""With --pdb a red row stops in the test, with the policy still in force; it is removed when the test is over."""

import pytest


@pytest.fixture
def debugged(inner):
    def run(*commands: str):
        return inner.pytester.run(*inner.command("--pdb"), stdin="".join(f"{line}\n" for line in commands).encode(), timeout=60)

    return run


def test_the_debugger_stops_in_the_test_with_the_policy_in_force(inner, debugged):
    inner.write(
        '@requirement(id="N01")\n'
        "def test_it(ztc_prove):\n"
        '    mine = "of the test"\n'
        '    ztc_prove(policy=POLICY, rows=[row("VIOLATED a")])\n'
    )
    result = debugged("p mine", "!print('removed:', 'remove' in open('fake.log').read())", "c")
    assert 1 == result.ret
    result.stdout.fnmatch_lines(["> *test_inner.py(6)test_it()", "(Pdb) 'of the test'", "(Pdb) removed: False"])
    assert ["prove N01 keeping", "remove N01"] == [line for line in inner.log if line.split()[0] in ("prove", "remove")]


def test_a_second_proof_does_not_meet_what_the_first_kept(inner, debugged):
    twice = 'ztc_prove(policy=POLICY, rows=[row("PROVED a")])'
    inner.write(f'@requirement(id="N01")\ndef test_it(ztc_prove):\n    {twice}\n    {twice}\n')
    assert 0 == debugged().ret
    kept = [line for line in inner.log if line.split()[0] in ("prove", "remove")]
    assert ["prove N01 keeping", "remove N01", "prove N01-2 keeping"] == kept[:3]
    assert "remove N01-2" == kept[-1]


def test_without_a_debugger_nothing_is_kept(inner):
    inner.write(inner.requirement("N01", "VIOLATED a"))
    inner.run()
    assert "prove N01" in inner.log
