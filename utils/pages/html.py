"""Parts of a page that opens anywhere: escaped text, tables, pictures in the page itself, and what may run in it."""

from __future__ import annotations

import base64
import hashlib
import html
import io
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from utils.errors import printable

JPEG_QUALITY = 88
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1100px;padding:0 1em;color:#222;background:#fff}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse}
td,th{padding:.15em 1em .15em 0;text-align:left;vertical-align:top;overflow-wrap:anywhere}td:first-child{color:#666}
.f{border-left:5px solid;padding:.3em .8em;margin:.5em 0;background:#f7f7f7}
.error{border-color:#c22}.warning{border-color:#e90}.note{border-color:#58a}.fix{color:#555}
.grid{display:flex;flex-wrap:wrap;gap:10px}figure{margin:0;max-width:100%}figcaption{font-size:12px;color:#555;
overflow-wrap:anywhere;max-width:240px}figure.bad img{outline:3px solid #e90}.wide figcaption{max-width:none}
img,video,canvas,svg{max-width:100%}img{display:block}
"""


def text(words: object) -> str:
    """Text of any origin, harmless in HTML and in its attributes."""
    return html.escape(printable(str(words)), quote=True)


def lines(words: str) -> str:
    """Text of several lines, harmless in HTML; line breaks stay."""
    return "\n".join(text(line) for line in words.splitlines())


def table(rows: Iterable[Sequence[object]], header: Sequence[object] = ()) -> str:
    """A table of escaped cells, with a row of headings if there are any."""
    head = f"<tr>{''.join(f'<th>{text(cell)}</th>' for cell in header)}</tr>" if header else ""
    body = (f"<tr>{''.join(f'<td>{text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{head}{''.join(body)}</table>"


def picture(pixels: NDArray[np.uint8]) -> str:
    """A picture [H, W, 3] as part of the page."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return f'<img alt="" src="{data_uri("image/jpeg", buffer.getvalue())}">'


def data_uri(kind: str, content: bytes) -> str:
    """A file as an address that contains it. kind: its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def page(title: str, parts: Iterable[str], *, style: str = "", script: str = "") -> str:
    """A whole page. parts: HTML, already escaped; style: rules beside `STYLE`; script: of ours, run at its end.

    The page tells the browser to run this script alone and to load nothing, whatever its parts contain.
    """
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(script)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{text(title)}</title><style>{STYLE}{style}</style>",
    ]
    end = f"<script>{script}</script>\n" if script else ""
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{"".join(head)}</head>\n<body>\n{body}\n{end}</body></html>\n'


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"; script-src 'sha256-{digest}'" if script else ""
    return f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'{allowed}"
