"""Small folders of images and other things, for the tests of `san prepare`."""

import io
import tarfile
import zipfile
from pathlib import Path

from PIL import Image


def picture(number, image_format="PNG", size=(6, 5)):
    """The bytes of a small image that no other number has."""
    image = Image.new("RGB", size, (number % 256, number // 256 % 256, number // 65536))
    image.putpixel((0, 0), (255 - number % 256, 7, 7))
    file = io.BytesIO()
    image.save(file, image_format, **{"quality": 95} if image_format == "JPEG" else {})
    return file.getvalue()


def fill(root, tree):
    """Writes files: {path: bytes}, or {path: number} for an image."""
    for path, content in tree.items():
        file = Path(root) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(content) if isinstance(content, int) else content)
    return Path(root)


def fill_zip(path, tree, **options):
    """The same in a zip."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in tree.items():
            archive.writestr(name, picture(content) if isinstance(content, int) else content)
    return Path(path)


def fill_tar(path, tree, mode="w", **options):
    """The same in a tar; mode w:gz, w:bz2 or w:xz packs it."""
    with tarfile.open(path, mode, **options) as archive:
        for name, content in tree.items():
            add_to_tar(archive, name, picture(content) if isinstance(content, int) else content)
    return Path(path)


def add_to_tar(archive, name, data=b"", **fields):
    """One member, with other fields of its header, such as type."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(data))


def class_tree(*classes, count=4, start=0, prefix=""):
    """{prefix/CLASS/NUMBER.png: NUMBER} with other images in every class."""
    return {
        f"{prefix}{name}/{number}.png": start + 1000 * index + number
        for index, name in enumerate(classes)
        for number in range(count)
    }


def contents(root):
    """{path: bytes} of everything below a folder, hidden files too."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in Path(root).rglob("*")
        if path.is_file()
    }
