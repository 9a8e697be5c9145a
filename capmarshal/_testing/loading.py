"""Has another process find what this one has: modules by their files, as those of tests may be found no other way."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

_MAIN = "__main__"
# So multiprocessing calls it in a process that is not the main one: `if __name__ == "__main__"` is passed over.
_OTHERS_MAIN = "__mp_main__"


def found_by(make: Any) -> dict[str, str | None]:
    """Where a function or class is: module, and its file.

    Raises:
        TypeError: it is not at the top of a module that has a file.
    """
    module, name = getattr(make, "__module__", None), getattr(make, "__qualname__", "")
    wrong = f"another process makes what is served by a class or function at the top of a module, which {make!r} is not"
    if module is None or not name.isidentifier():
        raise TypeError(wrong)
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None and module == _MAIN:
        raise TypeError(f"{wrong}: it was typed, or run by -c")
    return {"module": module, "file": None if file is None else str(Path(file).resolve())}


def load(module: str, file: str | None) -> None:
    """Has a module be there by its name: imported, or run from its file."""
    if module in sys.modules and module != _MAIN:
        return
    if file is None or _is_found(module, file):
        importlib.import_module(module)
        return
    spec = importlib.util.spec_from_file_location(_OTHERS_MAIN if module == _MAIN else module, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no module")
    made = importlib.util.module_from_spec(spec)
    _have_parents(spec.name, Path(file).parent)
    sys.modules[module] = sys.modules[spec.name] = made
    spec.loader.exec_module(made)


def _have_parents(module: str, folder: Path) -> None:
    """Has the packages be there that a module's name begins with, as pytest makes them up."""
    while package := module.rpartition(".")[0]:
        if package not in sys.modules:
            sys.modules[package] = types.ModuleType(package)
            sys.modules[package].__path__ = [str(folder)]
        module, folder = package, folder.parent


def _is_found(module: str, file: str) -> bool:
    if module == _MAIN:
        return False
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() == Path(file)
