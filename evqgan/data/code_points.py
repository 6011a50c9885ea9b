"""What the code points of an OpenMoji drawing say: its class, and whose variant it is.

A drawing's name is its code points in hexadecimal, such as "1F469-1F3FB-200D-1F373" (a woman who
cooks, of a light skin tone). For the data set `drawings` (data/builders/drawings.py) alone.
"""

import hashlib
from collections.abc import Iterable

JOINER, EMOJI_STYLE = "200D", "FE0F"
TONES = ("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF")  # of skin, from light to dark

# A class more changes VERSION and DESCRIPTION of data/builders/drawings.py, classes=9 in
# configs/drawings_stage2.py and CLASSES of configs/comparison.py (configs import none of this), the
# model that ships, docs/data.md, and docs/make/front_picture.py, where flags are the last class.
CLASSES = (
    "faces",
    "people",
    "animals",
    "food",
    "places",
    "activities",
    "objects",
    "symbols",
    "flags",
)
# First code points of each class: the groups of Unicode's emoji-test.txt, 17.0. Ours: what is no
# emoji of Unicode but OpenMoji's own (E000 to F8FF), chess pieces and stick figures. All others are
# symbols.
FIRST = {
    "faces": """
        2620 2639-263A 2763-2764 E280-E283 1F479-1F47B 1F47D-1F480 1F48B-1F48C 1F493-1F49F 1F4A2
        1F4A4-1F4A6 1F4A8-1F4A9 1F4AB-1F4AD 1F4AF 1F573 1F5A4 1F5E8-1F5EF 1F600-1F644
        1F648-1F64A 1F90D-1F90E 1F910-1F917 1F920-1F925 1F927-1F92F 1F970-1F976 1F978-1F97A
        1F9D0 1F9E1 1FA75-1FA77 1FAE0-1FAE5 1FAE8-1FAEF
    """,
    "people": """
        261D 26F7 26F9 270A-270D E0AC-E0AD E181-E189 E1DA E2C8-E2CA E2D7-E2D9 E300-E303
        E312-E316 E319 E31C-E322 E340-E341 1F385 1F3C2-1F3C4 1F3C7 1F3CA-1F3CC 1F440-1F450
        1F463-1F478 1F47C 1F481-1F483 1F485-1F487 1F48F 1F491 1F4AA 1F574-1F575 1F57A
        1F590-1F596 1F5E3 1F645-1F647 1F64B-1F64F 1F6A3 1F6B4-1F6B6 1F6C0 1F6CC 1F90C 1F90F
        1F918-1F91F 1F926 1F930-1F93E 1F977 1F9B4-1F9B9 1F9BB 1F9BE-1F9BF 1F9CC-1F9CF
        1F9D1-1F9E0 1FAC0-1FAC8 1FAE6 1FAF0-1FAF8 1FBC5-1FBC9
    """,
    "animals": """
        2618 E000-E011 1F331-1F335 1F337-1F33C 1F33E-1F344 1F3F5 1F400-1F43F 1F490 1F4AE 1F54A
        1F577-1F578 1F940 1F980-1F9AE 1FAB0-1FAB4 1FAB6-1FABF 1FACD-1FACF
    """,
    "food": """
        2615 E0C0-E0CC E2CE 1F32D-1F330 1F336 1F33D 1F345-1F37F 1F382 1F3FA 1F52A 1F942-1F944
        1F950-1F96F 1F9C0-1F9CB 1FAD0-1FADC
    """,
    "places": """
        231A-231B 23F0-23F3 2600-2604 2614 2668 2693 26A1 26C4-26C8 26E9-26F2 26F4-26F5
        26FA-26FD 2708 2744 2B50 E200-E216 E2C0-E2C7 E2CB-E2CD E2CF-E2D1 E2D3-E2D5 E2DA
        1F300-1F32C 1F3A0-1F3A2 1F3AA 1F3CD-1F3CE 1F3D4-1F3E6 1F3E8-1F3ED 1F3EF-1F3F0 1F488
        1F492 1F4A7 1F4BA 1F525 1F54B-1F54D 1F550-1F567 1F570 1F5FA-1F5FE 1F680-1F6A2
        1F6A4-1F6A8 1F6B2 1F6CE 1F6D1 1F6D5-1F6D6 1F6D8 1F6DD-1F6DF 1F6E2-1F6F6 1F6F8-1F6FC
        1F9BC-1F9BD 1F9ED 1F9F1 1F9F3 1FA82 1FA90 1FAA8 1FAB5
    """,
    "activities": """
        2654-2666 26BD-26BE 26F3 26F8 2728 1F004-1F0CF 1F380-1F381 1F383-1F384 1F386-1F38B
        1F38D-1F391 1F396-1F397 1F39F 1F3A3 1F3A8 1F3AB 1F3AD-1F3B4 1F3BD-1F3C0 1F3C5-1F3C6
        1F3C8-1F3C9 1F3CF-1F3D3 1F3F8 1F52B 1F52E 1F579 1F5BC 1F6F7 1F93F 1F945-1F94F
        1F9E7-1F9E9 1F9F5-1F9F6 1F9F8 1FA80-1FA81 1FA84-1FA86 1FAA1-1FAA2 1FAA9
    """,
    "objects": """
        2328 260E 2692 2694 2696-2699 26B0-26B1 26CF-26D3 2702 2709 270F-2712 E0B1 E0B3-E0B4
        E140-E157 E1C0-E1D9 E2D2 E2D6 E305-E30F E318 E31A-E31B E324-E32B E342-E348 1F392-1F393
        1F399-1F39E 1F3A4-1F3A5 1F3A7 1F3A9 1F3AC 1F3B5-1F3BC 1F3EE 1F3F7 1F3F9 1F451-1F462
        1F484 1F489-1F48A 1F48D-1F48E 1F4A1 1F4A3 1F4B0 1F4B3-1F4B9 1F4BB-1F4DA 1F4DC-1F4F2
        1F4F7-1F4FF 1F507-1F517 1F526-1F529 1F52C-1F52D 1F56F 1F576 1F587-1F58D 1F5A5-1F5B2
        1F5C2-1F5E1 1F5F3 1F5FF 1F6AA 1F6AC 1F6BD 1F6BF 1F6C1 1F6CB 1F6CD 1F6CF 1F6D2 1F6D7
        1F6E0-1F6E1 1F941 1F97B-1F97F 1F9AF 1F9BA 1F9E2-1F9E6 1F9EA-1F9EC 1F9EE-1F9F0 1F9F2
        1F9F4 1F9F7 1F9F9-1FA74 1FA78-1FA7C 1FA83 1FA87-1FA8F 1FA91-1FAA0 1FAA3-1FAA7
        1FAAA-1FAAE 1FAE7
    """,
    "flags": """
        E420-E435 1F1E6-1F1FF 1F38C 1F3C1 1F3F3-1F3F4 1F6A9
    """,
}
# Ours: drawings of one motif under several code points, by their beginnings up to a joiner: the
# genders of a person, hands that shake, colours of hearts, clocks, and what looks the same, as some
# flags do. Adults are one motif, with whatever they wear and hold, in couples and in families.
MOTIFS = (
    "1F9D1 1F468 1F469 1F46A 1F46B 1F46C 1F46D 1F48F 1F491 1F385 1F936 1F471 1F64D",
    "1F9D2 1F466 1F467",
    "1F9D3 1F474 1F475",
    "1FAC5 1F934 1F478",
    "1FAC4 1FAC3 1F930",
    "1F483 1F57A",
    "1F91D 1FAF1 1FAF2",
    "1FBC5 1FBC6 1FBC7 1FBC8 1FBC9",
    "1F6B9 1F6BA",
    "E185 E186 E187",
    "E2C8 E2C9 E2CA",
    "E2D7 E2D8 E2D9",
    "E300 E301 E302 E303",
    "E340 E341",
    "1F641 2639",
    "1F608 1F47F",
    "2764 1F9E1 1F49B 1F49A 1F499 1F49C 1F90E 1F5A4 1F90D 1FA75 1FA76 1FA77",
    "1F550 1F551 1F552 1F553 1F554 1F555 1F556 1F557 1F558 1F559 1F55A 1F55B 1F55C 1F55D "
    "1F55E 1F55F 1F560 1F561 1F562 1F563 1F564 1F565 1F566 1F567",
    "1F7EB 1F3FB 1F3FC 1F3FD 1F3FE 1F3FF",
    "1F7E6 20E3",
    "1F7E1 1F315",
    "26AB 1F311",
    "1F3F3 25AD",
    "1F1E6-1F1FA 1F1ED-1F1F2",
    "1F1EB-1F1F7 1F1E8-1F1F5 1F1F2-1F1EB",
    "1F1EA-1F1F8 1F1EA-1F1E6",
    "1F1EE-1F1E9 1F1F2-1F1E8",
    "1F1F3-1F1F4 1F1F8-1F1EF 1F1E7-1F1FB",
    "1F1F7-1F1F4 1F1F9-1F1E9",
    "1F1FA-1F1F8 1F1FA-1F1F2",
)
SAME = {name: names.split()[0] for names in MOTIFS for name in names.split()}
# Ours: motifs of more drawings are trained on. Adults have 139, which would be most of all people
# that are held out, or none.
LARGEST = 12
EVERY = 10  # ours: one motif in ten is held out


def _first_points() -> dict[int, str]:
    """Return the class of each first code point in FIRST."""
    found = {}
    for name, runs in FIRST.items():
        for run in runs.split():
            ends = [int(end, 16) for end in run.split("-")]
            found.update(dict.fromkeys(range(ends[0], ends[-1] + 1), name))
    return found


CLASS_OF_POINT = _first_points()


def class_of(name: str) -> str:
    """Return the class, one of CLASSES, of the drawing `name`."""
    points = name.split("-")
    if len(points) == 1 and 0x1F1E6 <= int(name, 16) <= 0x1F1FF:
        return "symbols"  # a letter, of which it takes two for a flag
    return CLASS_OF_POINT.get(int(points[0], 16), "symbols")


def has_tone(name: str) -> bool:
    """Return whether the drawing `name` is a variant with a skin tone."""
    return any(point in TONES for point in name.split("-")[1:])


def motif_of(name: str) -> str:
    """Return the motif of which the drawing `name` is a variant.

    Variants differ in skin tone, gender, hair or direction, or in what is joined to the first
    drawing.
    """
    points = name.split("-")
    first = points[: points.index(JOINER)] if JOINER in points else points
    kept = [
        point
        for place, point in enumerate(first)
        if point != EMOJI_STYLE and (not place or point not in TONES)
    ]
    return SAME.get("-".join(kept), "-".join(kept))


def held_out(names: Iterable[str]) -> set[str]:
    """Return the motifs whose drawings are held out: of each class one in ten, chosen by hash.

    names: all drawings. Those with skin tones change nothing, so that the motifs are the same with
    and without them.
    """
    drawings: dict[str, list[str]] = {}
    for name in names:
        if not has_tone(name):
            drawings.setdefault(motif_of(name), []).append(name)
    chosen: set[str] = set()
    for label in CLASSES:
        motifs = [
            motif
            for motif, variants in drawings.items()
            if class_of(motif) == label and len(variants) <= LARGEST
        ]
        motifs.sort(key=lambda motif: hashlib.sha256(motif.encode()).digest())
        chosen.update(motifs[: round(len(motifs) / EVERY)])
    return chosen
