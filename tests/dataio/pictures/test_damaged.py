"""Pictures whose bytes are damaged anywhere: pixels or one line, never another exception."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataio.pictures import images
from dataio.pictures.exif import read_exif
from utils.errors import InputError

KINDS = [("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PNG", {}), ("JPEG", {}), ("WEBP", {})]
READERS = (images.image_size, images.read_image, images.read_mask, images.stored_depth, images.has_alpha, read_exif)


def encoded(kind: str, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def check(path: Path) -> None:
    """Every reader gives something, or says in one line what is wrong."""
    for read in READERS:
        try:
            read(path)
        except InputError as error:
            assert "\n" not in str(error) and path.name in str(error)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about metadata
@pytest.mark.parametrize("kind, options", KINDS, ids=[f"{kind}{len(options)}" for kind, options in KINDS])
def test_bytes_that_are_damaged(kind: str, options: dict[str, object], tmp_path: Path) -> None:
    content, generator = encoded(kind, **options), random.Random(0)
    ends = [*range(min(200, len(content))), *range(max(len(content) - 300, 0), len(content))]
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(generator.choice((1, 1, 2, 4))):
            damaged[generator.choice(ends)] = generator.choice((0, 255, 127, generator.randrange(256)))
        (tmp_path / "picture").write_bytes(damaged)
        check(tmp_path / "picture")


def test_a_tiff_that_claims_more_rows_than_it_has(tmp_path: Path) -> None:
    content = bytearray(encoded("TIFF"))
    height = content.index((0x0101).to_bytes(2, "little") + (4).to_bytes(2, "little")) + 8
    assert content[height] == 24
    content[height : height + 2] = (50_000).to_bytes(2, "little")
    (tmp_path / "tall.tif").write_bytes(content)
    with pytest.raises(InputError, match=r"tall\.tif - damaged image: got data of a part of its 32 x 50000 pixels"):
        images.read_image(tmp_path / "tall.tif")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_tiff_whose_second_page_is_broken(tmp_path: Path) -> None:
    """How many pages there are is found by going through them."""
    first = encoded("TIFF")
    place = int.from_bytes(first[4:8], "little")
    pages = int.from_bytes(first[place : place + 2], "little")
    following = place + 2 + 12 * pages  # where the place of the second page stands
    entry = (0x0153).to_bytes(2, "little") + (3).to_bytes(2, "little") + (1).to_bytes(4, "little") + b"\xff" * 4
    for page in (b"", b"\0", b"\0\0", b"\1\0", b"\1\0" + entry, b"\xff\xff" + entry):
        broken = bytearray(first + page)
        broken[following : following + 4] = len(first).to_bytes(4, "little")
        (tmp_path / "pages.tif").write_bytes(broken)
        check(tmp_path / "pages.tif")
    with pytest.raises(InputError, match=r"pages\.tif - damaged image"):
        images.read_image(tmp_path / "pages.tif")
