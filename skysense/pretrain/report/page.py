"""The page itself: escaped text and pictures inside, nothing from outside."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem 1.25rem 3rem; background: #fff;
  color: #1a1a1a; font: 1rem/1.5 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .2rem; padding-top: .9rem; border-top: 1px solid #ccc; }
h3 { font-size: 1rem; margin: 0 0 .3rem; display: flex; justify-content: space-between; gap: 1rem; }
h3 span { font-weight: 400; font-variant-numeric: tabular-nums; white-space: nowrap; }
p { margin: .3rem 0 .8rem; max-width: 46rem; overflow-wrap: anywhere; }
a { color: #1f5fa8; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .6rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .25rem 1.2rem .25rem 0;
  border-bottom: 1px solid #e4e4e4; overflow-wrap: anywhere; }
th { font-weight: 600; }
.verdict { padding: .5rem .8rem; border-left: .35rem solid #1b7837; background: #f2f8f3; }
.verdict.bad { border-color: #b2182b; background: #fcf2f2; }
.cards { display: grid; gap: 1.6rem 1.8rem;
  grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }
figure { margin: 0; min-width: 0; }
figure > img { display: block; width: 100%; height: auto; }
figcaption { font-size: .9rem; line-height: 1.4; color: #333; overflow-wrap: anywhere; }
.sheet { display: grid; gap: .6rem; margin: .9rem 0 1.3rem;
  grid-template-columns: repeat(7, minmax(0, 1fr)); max-width: 60rem; }
.sheet img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain;
  border: .3rem solid #ddd; background: #eee; }
.sheet .first img { border-color: #1a1a1a; }
.sheet .same img { border-color: #1b7837; }
.sheet .other img { border-color: #b2182b; border-style: dashed; }
.sheet figcaption { font-size: .78rem; line-height: 1.25; margin-top: .15rem; }
pre { background: #f6f6f6; padding: .8rem; font-size: .82rem; line-height: 1.4;
  white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 40rem) { .sheet { grid-template-columns: repeat(4, minmax(0, 1fr)); } }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; }
  figure, .sheet, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .cards { grid-template-columns: repeat(2, 1fr); }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    """Plain text."""
    body: str
    """HTML, escaped already."""


def card(title: str, picture: bytes, reading: str, value: str = "") -> str:
    """A PNG under its title, with a sentence on how to read it and perhaps its last value."""
    shown = f"<span>{escape(value)}</span>" if value else ""
    alt = f"{title}: {value}" if value else title
    return (
        f"<figure><h3>{escape(title)}{shown}</h3>{image(picture, alt)}"
        f"<figcaption>{escape(reading)}</figcaption></figure>"
    )


def tile(picture: bytes, caption: str, kind: str = "", alt: str = "") -> str:
    """A small picture of a sheet; `kind` is `first`, `same`, `other` or nothing."""
    return (
        f'<figure class="{escape(kind)}">{image(picture, alt or caption)}'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def sheet(tiles: Iterable[str]) -> str:
    """Tiles side by side, seven in a row or, on a phone, four."""
    return f'<div class="sheet">{"".join(tiles)}</div>'


def cards(made: Iterable[str]) -> str:
    """As many columns as there is room for."""
    return f'<div class="cards">{"".join(made)}</div>'


def image(picture: bytes, alt: str) -> str:
    """A PNG inside the page."""
    data = base64.b64encode(picture).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}">'


def paragraph(text: str, kind: str = "") -> str:
    """Plain text."""
    return f'<p class="{escape(kind)}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def table(rows: Mapping[str, str]) -> str:
    """What and how much."""
    cells = (
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table><tbody>{''.join(cells)}</tbody></table>"


def preformatted(text: str) -> str:
    """Text as it is."""
    return f"<pre>{escape(text)}</pre>"


def build_page(title: str, sections: Sequence[Section]) -> str:
    """The whole page, with links to its sections."""
    links = (
        f'<a href="#part{place}">{escape(section.title)}</a>'
        for place, section in enumerate(sections)
    )
    bodies = (
        f'<section id="part{place}"><h2>{escape(section.title)}</h2>{section.body}</section>'
        for place, section in enumerate(sections)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1><nav>{' '.join(links)}</nav>\n"
        + "\n".join(bodies)
        + "\n</body></html>\n"
    )
