"""Where this package is, and what it needs: a confined process reads that, wherever it is."""

from __future__ import annotations

# What folders are called that have packages in them and nothing else.
_PACKAGES = ("site-packages", "dist-packages")


def own_folders() -> tuple[list[str], list[str]]:
    """(the folders that they are in, what of them is read)."""
    # Imported when used, as subprocess is.
    import importlib.util
    from pathlib import Path

    found = []
    for name in ("capmarshal", "msgspec", "_cffi_backend"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        place = Path(spec.origin)
        found.append(place.parent if spec.submodule_search_locations else place)
    folders = [*dict.fromkeys(place.parent for place in found)]
    read = [*found, *(each for each in folders if each.name in _PACKAGES)]
    return [*map(str, folders)], [*map(str, read)]
