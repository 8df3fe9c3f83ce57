# SPDX-License-Identifier: Apache-2.0
"""Which stacks there are, what each needs and will be able to prove, and the images that it runs from; asks no cluster."""

import ast
import functools
from collections.abc import Callable, Mapping

from ztconform import catalogue, resources
from ztconform.errors import EXIT_PROVED, UsageError
from ztconform.settings import Settings
from ztconform.stacks import find, names
from ztconform.stacks.composed import ComposedStack, promised

Say = Callable[[str], None]


def stacks(say: Say, settings: Settings) -> int:
    """List the stacks, each with what it is, and below that what it needs and can prove."""
    from ztconform.stacks import images

    for name in names():
        stack = find(name)
        say(f"{name}  {stack.summary}")
        if isinstance(stack, ComposedStack):
            count = len(images.of(stack, settings))
            able = len(_able(promised(stack, settings)))
            say(f"    needs {_needs(stack)}, {count} images; can prove {able} of the {len(played())} requirements with scenarios")
    say("every other combination is a stack too, as far as it makes sense: CNI[+PART...][:OPTION...]")
    return EXIT_PROVED


def one(say: Say, name: str, settings: Settings) -> int:
    """Say all of one stack: what it needs, what it can prove, and of every feature that it lacks why.

    Raises UsageError for a name that is no stack.
    """
    stack = find(name)
    say(f"{stack.name}  {stack.summary}")
    if not isinstance(stack, ComposedStack):
        return EXIT_PROVED
    features = promised(stack, settings)
    say(f"needs {_needs(stack)}")
    say(f"can prove {' '.join(sorted(_able(features)))}")
    for feature, why in sorted(features.items()):
        if why:
            say(f"lacks {feature}: {why}")
    return EXIT_PROVED


def images(say: Say, name: str, settings: Settings) -> int:
    """Print every image that a stack runs from, one a line; raises UsageError for a stack that runs from none that is known."""
    from ztconform.stacks import images as known
    from ztconform.stacks.kubernetes import extras

    stack = find(name)
    if not isinstance(stack, ComposedStack):
        raise UsageError(f"--images {name}: " + ("its CNI is yours" if name == "custom" else "the lab runs from no image"))
    with extras():
        stack.check(settings)
        for image in known.of(stack, settings):
            say(image)
    return EXIT_PROVED


@functools.cache
def played() -> frozenset[str]:
    """Return the requirements that our scenarios prove, as they are written there; nothing is imported."""
    files = resources.folder("scenarios").glob("test_*.py")
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    calls = (node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "requirement")
    return frozenset(ast.literal_eval(word.value) for call in calls for word in call.keywords if word.arg == "id")


def _able(features: Mapping[str, str]) -> list[str]:
    wanted = [one for one in catalogue.load().values() if one.id in played()]
    return [one.id for one in wanted if all(features[feature] == "" for feature in one.features)]


def _needs(stack: ComposedStack) -> str:
    kernel = [need.what for need in stack.kernel]
    return f"{stack.memory} MiB" + (f", {' and '.join(kernel)} in the kernel" if kernel else "")
