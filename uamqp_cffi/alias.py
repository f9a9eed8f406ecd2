"""Being `uamqp`: every `uamqp` and `uamqp.X` that is imported is the module `uamqp_cffi` and `uamqp_cffi.X`, no copy of it.

    import uamqp_cffi
    uamqp_cffi.install_as_uamqp()
    import uamqp.errors
    assert uamqp.errors is uamqp_cffi.errors

(No doctest: it cannot be undone, so the tests call it in processes of their own.)
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

OURS = __package__
OLD = "uamqp"


def _ours(name: str) -> str:
    """`uamqp_cffi.X` for `uamqp.X`."""
    return OURS + name[len(OLD) :]


class _Loader(Loader):
    """Puts the module of ours where a module of `uamqp` is looked for."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None  # an empty one, which exec_module replaces: nothing of the real module's is touched

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        name = module.__spec__.name
        sys.modules[name] = importlib.import_module(_ours(name))

    def get_code(self, fullname: str) -> CodeType | None:
        """For `python -m uamqp`."""
        spec = importlib.util.find_spec(_ours(fullname))
        loader = None if spec is None else spec.loader
        return loader.get_code(_ours(fullname)) if isinstance(loader, InspectLoader) else None


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != OLD and not fullname.startswith(OLD + "."):
            return None
        real = importlib.util.find_spec(_ours(fullname))
        if real is None:
            return None
        spec = ModuleSpec(fullname, _Loader(), origin=real.origin)
        spec.submodule_search_locations = real.submodule_search_locations
        return spec


def _strangers() -> list[ModuleType]:
    """The modules of another `uamqp` that are imported already."""
    found = []
    for name, module in list(sys.modules.items()):
        if (name == OLD or name.startswith(OLD + ".")) and sys.modules.get(_ours(name)) is not module:
            found.append(module)
    return found


def install_as_uamqp() -> None:
    """From now on `import uamqp`, and of any module in it, gives this package, the same module objects.

    To be called before anything imports `uamqp`; calling it again changes nothing. Raises RuntimeError when another
    `uamqp` is imported already: objects of two packages do not mix. A child process that does not inherit this one's
    memory has to call it too.
    """
    strangers = _strangers()
    if strangers:
        where = getattr(strangers[0], "__file__", None) or "an unknown place"
        raise RuntimeError(
            f"{strangers[0].__name__} is already imported, from {where}: "
            "call uamqp_cffi.install_as_uamqp() before anything imports uamqp"
        )
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    sys.modules[OLD] = sys.modules[OURS]


def replace(stub: str) -> None:
    """For the distribution named `uamqp`, whose only module this is called from, with its name: takes its place."""
    del sys.modules[stub]
    install_as_uamqp()
