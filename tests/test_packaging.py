"""What is shipped: run by pytest in the checkout, and by CI against the installed wheel, outside of it."""

import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path

import sancli


def kernels():
    inside = resources.files("sancli") / "kernels"
    return inside if inside.is_dir() else Path(sancli.__file__).parent.parent / "kernels"


def test_the_version_is_that_of_the_installed_package():
    assert metadata.version("sancli") == sancli.__version__


def test_the_kernels_folder_is_shipped_and_is_no_package():
    assert (kernels() / "README.md").is_file()
    assert list((kernels() / "cpu").glob("*.h"))
    assert list((kernels() / "cpu").glob("*.cpp"))
    assert not (kernels() / "__init__.py").is_file()


def test_the_templates_of_the_pages_are_shipped():
    assert (resources.files("sancli") / "report/pages/templates/preparation.html").is_file()


def test_the_command_is_installed():
    (script,) = (s for s in metadata.entry_points(group="console_scripts") if s.name == "san")
    assert script.value == "sancli.cli:main"


def test_the_package_imports_without_torch_and_finds_load_when_it_is_asked():
    check = "import sys, sancli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=Path(sancli.__file__).parent)
    assert callable(sancli.load)


def test_the_cpu_kernels_are_built_from_what_is_shipped():
    from sancli.ops.cpu import build

    assert build.sources() == Path(str(kernels() / "cpu"))
