"""What our pages share: one file that loads nothing, in the reader's light or dark theme.

Pictures are data, and the page's policy allows no other source, nor any script but its own. Everything that comes from
a file is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io

from PIL import Image

from latentclr.scores.subject import Pixels

TILE, GAP = 128, 2  # the largest side of a tile in pixels, and what is left between two

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --card: #f6f7f9; --line: #d9dde3; --ink: #16191d; --soft: #5b6470;
  --up: #1f77b4; --down: #c2571a; --good: #1a7f4b; --bad: #b3261e; --c1: #1f77b4; --c2: #c2571a; --c3: #6a51a3; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --card: #1d2126; --line: #343a42; --ink: #e8eaed;
  --soft: #a0a8b3; --up: #5aa9e6; --down: #f0925a; --good: #5ecb94; --bad: #ff8a80; --c1: #5aa9e6; --c2: #f0925a;
  --c3: #b39ddb; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px; max-width: 1240px; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 28px 0 8px; } h3 { font-size: 18px; margin: 0; }
p { margin: 4px 0; } .soft { color: var(--soft); } .warn { color: var(--bad); font-weight: 600; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 16px 0; padding: 0; list-style: none; }
.tiles li { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
.tiles b { display: block; font-size: 21px; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--soft); font-size: 13px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; } td small { display: block; color: var(--soft); }
.better { color: var(--good); font-weight: 600; } .worse { color: var(--bad); font-weight: 600; }
.sort { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; margin: 0 0 12px; }
.sort button { font: inherit; font-size: 14px; color: inherit; background: var(--card); border: 1px solid var(--line);
  border-radius: 6px; padding: 4px 11px; cursor: pointer; }
.sort button[aria-pressed=true] { border-color: var(--up); box-shadow: inset 0 0 0 1px var(--up); }
.cards { display: grid; gap: 14px; }
.card { display: grid; grid-template-columns: minmax(0, 430px) minmax(0, 1fr); gap: 6px 26px; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; break-inside: avoid; }
.card header { grid-column: 1 / -1; display: flex; flex-wrap: wrap; gap: 2px 12px; align-items: baseline; }
.number { color: var(--soft); font-weight: 400; } .tag { font-size: 13px; border: 1px solid var(--line);
  border-radius: 99px; padding: 0 9px; color: var(--soft); } .tag.twin, .tag.flip { color: var(--down);
  border-color: var(--down); }
.strip img { width: 100%; display: block; border-radius: 4px; }
.ends { display: grid; grid-template-columns: repeat(5, 1fr); text-align: center; font-size: 13px; color: var(--soft);
  font-variant-numeric: tabular-nums; margin-top: 3px; }
.facts { grid-column: 1 / -1; margin: 6px 0 0; display: flex; flex-wrap: wrap; gap: 4px 28px; font-size: 14px; }
.facts dt { color: var(--soft); font-size: 13px; } .facts dd { margin: 0; font-variant-numeric: tabular-nums; }
svg { display: block; width: 100%; height: auto; overflow: visible; } svg text { fill: var(--ink); font-size: 12.5px; }
svg .soft { fill: var(--soft); }
.axis { stroke: var(--line); } .bar { fill: var(--up); } .bar.down { fill: var(--down); }
.bar.weak { opacity: .35; } .whisker { stroke: var(--ink); stroke-width: 1.4; }
.c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); } .c3 { stroke: var(--c3); }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg text.c1 { fill: var(--c1); stroke: none; } svg text.c2 { fill: var(--c2); stroke: none; }
svg text.c3 { fill: var(--c3); stroke: none; }
@media (max-width: 820px) { body { padding: 14px; } .card { grid-template-columns: minmax(0, 1fr); }
  .plots { overflow-x: auto; } .plots svg { min-width: 520px; } }
"""


def whole_page(title: str, body: str, style: str, script: str = "") -> str:
    """Return a page whose policy allows this style and script, and nothing else.

    Args:
        title: What the window is called; escaped here.
        body: HTML.
        style: CSS.
        script: JavaScript, if any.
    """
    allowed = f"script-src {_hash(script)}" if script else "script-src 'none'"
    policy = (
        f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; style-src {_hash(style)}; {allowed}"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{escaped(title)}</title>
<style>{style}</style>
</head>
<body>
{body}
{f"<script>{script}</script>" if script else ""}
</body>
</html>
"""


def escaped(text: object) -> str:
    """Return anything as text that HTML shows as it is."""
    return html.escape(str(text))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def picture_data(strip: Pixels) -> str:
    """Return pictures [N, 5, H, W, 3] as one WebP in a data URI, in N rows with clear gaps."""
    rows, columns, height, width = strip.shape[:4]
    scale = min(1.0, TILE / max(height, width))
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    sheet = Image.new("RGBA", (columns * (w + GAP) - GAP, rows * (h + GAP) - GAP))
    for r in range(rows):
        for c in range(columns):
            tile = Image.fromarray(strip[r, c]).resize((w, h), Image.Resampling.LANCZOS)
            sheet.paste(tile, (c * (w + GAP), r * (h + GAP)))
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=88, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
