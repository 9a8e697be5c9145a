"""What is said of an installation: which version it is, and where it cannot be made."""

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import capmarshal
from patience import PATIENCE

SETUP = Path(__file__).parents[1] / "setup.py"


def test_the_version_is_the_one_that_was_installed():
    """Of the package, and of the command."""
    assert capmarshal.__version__ == importlib.metadata.version("capmarshal")
    command = [sys.executable, "-P", "-m", "capmarshal", "--version"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert (said.stdout, said.stderr) == (f"capmarshal {capmarshal.__version__}\n", "")


def test_a_free_threaded_python_is_refused_in_words():
    """Before anything is compiled: here by the ordinary one, which is told that it is such."""
    script = f"""
import runpy, sysconfig
sysconfig.get_config_vars()["Py_GIL_DISABLED"] = 1
runpy.run_path({str(SETUP)!r}, run_name="__main__")
"""
    refused = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    assert refused.returncode == 1
    assert refused.stderr.startswith("capmarshal does not run on a free-threaded CPython")


def test_a_checkout_without_its_extension_is_refused_in_words(tmp_path):
    """`python -c` puts the folder where it is started before what is installed: the error says so, and how not to."""
    package = Path(capmarshal.__file__).parent
    shutil.copytree(package, tmp_path / "capmarshal", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    command = [sys.executable, "-c", "import capmarshal"]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert refused.returncode == 1
    words = "ImportError: capmarshal is imported from where its C part was not compiled, as from a checkout"
    assert refused.stderr.splitlines()[-1].startswith(words)
    installed = subprocess.run([*command[:1], "-P", *command[1:]], cwd=tmp_path, timeout=PATIENCE)
    assert installed.returncode == 0
