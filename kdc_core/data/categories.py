"""Which category of a COCO file is the person, and which keypoints it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from kdc_core.codec.skeleton import SKELETONS, Skeleton
from kdc_core.data.annotations import AnnotationError
from kdc_core.data.entries import CategoryEntry, Id, Notes, as_id, described, read_entry

PERSON = "person"
NAMED = 24  # names that a message lists


def read_categories(content: dict[str, Any], notes: Notes) -> list[CategoryEntry]:
    """Read `categories` of a file; where it has none, those that its annotations name.

    Raises:
        AnnotationError: names the first wrong entry.
    """
    given = content.get("categories") or []
    if not isinstance(given, list):
        raise AnnotationError(f"'categories': expected a list, got a {type(given).__name__}")
    found = []
    for index, raw in enumerate(given):
        try:
            found.append(read_entry(CategoryEntry, raw, notes, f"category {index}"))
        except ValidationError as error:
            raise AnnotationError(f"category {index}: {described(error)}") from error
    if found:
        return found
    # COCO's category 1 is the person.
    used = sorted((i for i in _used(content) if i is not None), key=str)
    return [CategoryEntry(id=i, name=PERSON if i == 1 else "") for i in used]


def person_category(
    content: dict[str, Any], categories: list[CategoryEntry], wanted: str | None
) -> CategoryEntry:
    """Find the category of persons.

    The one named `person`, else the only one with keypoints, else the only one. One that has no
    annotations and only stands above others, as Roboflow writes it, does not count.

    Args:
        content: of the file.
        categories: of `read_categories`.
        wanted: id or name of the category; None = found by these rules.

    Raises:
        AnnotationError: none or several could be it.
    """
    used = _used(content)
    if not categories:
        return CategoryEntry(id=1, name=PERSON)
    above = {c.supercategory for c in categories if c.supercategory != c.name}
    pool = [c for c in categories if as_id(c.id) in used or c.name not in above] or categories
    rules: list[Callable[[CategoryEntry], bool]] = [
        lambda category: _alike(category.name, PERSON),
        lambda category: bool(category.keypoints),
        lambda category: True,
    ]
    if wanted is not None:
        pool = categories
        rules = [
            lambda category: as_id(category.id) == as_id(wanted),
            lambda category: _alike(category.name, wanted),
        ]
    for rule in rules:
        found = [category for category in pool if rule(category)]
        if len(found) == 1:
            return found[0]
    there = [f"{c.id!r} '{c.name}' ({used[as_id(c.id)]} annotations)" for c in categories]
    asked = "which category is the person" if wanted is None else f"no one category '{wanted}'"
    raise AnnotationError(f"{asked}: give --category with the id or name of one of {_few(there)}")


def has_keypoints(names: list[str], skeleton: Skeleton) -> bool:
    """Whether a category's keypoints are those of a skeleton, in its order and by their names."""
    return [_plain(name) for name in names] == [_plain(name) for name in skeleton.keypoints]


def other_skeleton(names: list[str], skeleton: Skeleton) -> str | None:
    """What is wrong where a category's keypoints are not those of a skeleton, else None."""
    if not names or has_keypoints(names, skeleton):
        return None
    ours, theirs = [[_plain(n) for n in some] for some in (skeleton.keypoints, names)]
    # Names that are all unknown may be other words for the same.
    if len(names) == len(ours) and set(ours).isdisjoint(theirs):
        return None
    text = (
        f"its persons have {len(names)} keypoints ({_few(names)}), expected "
        f"{skeleton.num_keypoints} ({_few(skeleton.keypoints)})"
    )
    if len(names) == len(ours):
        text += ", in this order in its category"
    for known in SKELETONS.values():
        if known is not skeleton and known.num_keypoints == len(names):
            return (
                f"{text}; the skeleton {known.name} has as many (`kdc data check --skeleton`, "
                "`kdc train --set fields.skeleton=`, `--preset` of a file with it where there is "
                "no model, or a model that has it)"
            )
    there = ", ".join(f"{s.name} ({s.num_keypoints})" for s in SKELETONS.values())
    return (
        f"{text}. Known skeletons: {there}; another is added as a `Skeleton` in "
        "kdc_core/codec/skeleton.py, as CONTRIBUTING.md says"
    )


def _used(content: dict[str, Any]) -> Counter[Id | None]:
    """How many annotations name each category."""
    entries = (e for e in content["annotations"] if isinstance(e, dict))
    ids = (entry.get("category_id") for entry in entries)
    return Counter(as_id(i) for i in ids if i is not None)


def _alike(name: str, wanted: str) -> bool:
    return name.strip().casefold() == wanted.strip().casefold()


def _plain(name: str) -> str:
    """A keypoint's name without what tools write differently."""
    return "".join(filter(str.isalnum, name.casefold()))


def _few(names: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
