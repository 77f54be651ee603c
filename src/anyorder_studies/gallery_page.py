"""The gallery's page: markup, styles for both colour schemes, and the filter."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from anyorder_studies.page import NOTES, origin
from anyorder_studies.verdict import Verdict

if TYPE_CHECKING:
    from anyorder_studies.gallery import Entry

STYLES = """
:root{color-scheme:light dark;--ground:#f6f7f9;--card:#fff;--ink:#16181d;--soft:#5b6472;
--line:#dfe3e8;--good:#187a4a;--half:#8a5a00;--open:#2a5fb0;--bad:#b3262e;--focus:#2f7fd0}
@media (prefers-color-scheme:dark){:root{--ground:#101216;--card:#181b21;--ink:#e4e7ec;
--soft:#9aa4b2;--line:#2b3038;--good:#5fcf98;--half:#e8b04a;--open:#82aef0;--bad:#f2868c}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
header,main,footer{max-width:1280px;margin:0 auto;padding:0 20px}
header{padding-top:36px}h1{font-size:27px;line-height:1.2;margin:0 0 6px;letter-spacing:-.01em}
header p{margin:0 0 18px;color:var(--soft);max-width:72ch}
.filter{display:flex;flex-wrap:wrap;gap:8px;border:0;padding:0;margin:0 0 20px}
.filter legend{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.filter label{position:relative}
.filter input{position:absolute;opacity:0;inset:0;margin:0;cursor:pointer}
.filter span{display:block;padding:5px 13px;border:1px solid var(--line);border-radius:99px;
background:var(--card);font-size:14px;font-variant-numeric:tabular-nums}
.filter input:checked+span{background:var(--ink);color:var(--ground);border-color:var(--ink)}
.filter input:disabled+span{opacity:.45}
.filter input:focus-visible+span{outline:2px solid var(--focus);outline-offset:2px}
.grid{display:grid;gap:18px;grid-template-columns:repeat(auto-fill,minmax(min(100%,390px),1fr));
list-style:none;margin:0;padding:0}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:16px;
display:flex;flex-direction:column;gap:10px;min-width:0}
.card[hidden]{display:none}
.top{display:flex;justify-content:space-between;align-items:flex-start;gap:12px}
h2{font-size:16px;line-height:1.3;margin:0}
.badge{flex:none;font-size:12.5px;font-weight:600;padding:1px 9px;border-radius:99px;
border:1px solid currentColor;white-space:nowrap}
.reproduced{color:var(--good)}.partly{color:var(--half)}
.not-at-this-scale{color:var(--open)}.refuted{color:var(--bad)}.changed{color:var(--soft)}
.badges{flex:none;display:flex;flex-direction:column;align-items:flex-end;gap:4px}
.figure{display:block;width:100%;padding:0;border:0;border-radius:6px;background:none;
cursor:zoom-in;color:var(--ink)}
.figure svg,dialog svg{display:block;width:100%;height:auto}
dialog{width:min(1100px,94vw);max-height:94vh;padding:22px;border:1px solid var(--line);
border-radius:12px;background:var(--card);color:var(--ink)}
dialog::backdrop{background:rgb(0 0 0/.55)}
dialog form{display:flex;justify-content:space-between;align-items:flex-start;gap:16px;
margin-bottom:12px}
dialog button{font:inherit;font-size:14px;padding:4px 13px;border:1px solid var(--line);
border-radius:99px;background:var(--ground);color:inherit;cursor:pointer}
details{margin:0 0 18px;color:var(--soft);max-width:76ch;font-size:14px}
details dl{margin-top:8px}details dt{color:var(--ink);white-space:nowrap}
summary{cursor:pointer;width:fit-content}
button:focus-visible,summary:focus-visible{outline:2px solid var(--focus);outline-offset:2px}
.claim{margin:0}dl{display:grid;grid-template-columns:auto 1fr;gap:2px 12px;margin:0;
font-size:14px;font-variant-numeric:tabular-nums}dt{color:var(--soft)}dd{margin:0;min-width:0}
.again{margin-top:auto;padding-top:4px}
code{display:block;overflow-wrap:anywhere;padding:7px 10px;border-radius:7px;
background:var(--ground);font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.meta{color:var(--soft);font-size:13px;margin:0}
footer{color:var(--soft);font-size:13px;padding-top:24px;padding-bottom:40px}
"""

SCRIPT = """
const cards=[...document.querySelectorAll('.card')],state=document.getElementById('state');
function apply(){const want=document.querySelector('input[name=verdict]:checked').value;
let shown=0;for(const card of cards){const on=!want||card.dataset.verdict===want;
card.hidden=!on;shown+=on}
state.textContent=shown===1?'1 study shown':shown+' studies shown';
history.replaceState(null,'',want?'#'+want.replaceAll(' ','-'):location.pathname+location.search)}
for(const box of document.querySelectorAll('input[name=verdict]')){
box.addEventListener('change',apply);
if(location.hash&&location.hash.slice(1)===box.value.replaceAll(' ','-')&&!box.disabled)
box.checked=true}apply();
const large=document.querySelector('dialog'),frame=large.querySelector('div');let home=null;
for(const button of document.querySelectorAll('.figure'))button.addEventListener('click',()=>{
home=button;large.querySelector('h2').textContent=button.dataset.title;
frame.append(button.firstElementChild);large.showModal()});
large.addEventListener('close',()=>home.append(frame.firstElementChild));
large.addEventListener('click',event=>{if(event.target===large)large.close()});
"""

RULE = {
    Verdict.REPRODUCED: "the central effect has the claimed size, and every other claimed "
    "effect exists",
    Verdict.PARTLY: "the central effect exists, but its size is off or another claim is not met",
    Verdict.NOT_AT_THIS_SCALE: "the measured interval contains the value for no effect",
    Verdict.REFUTED: "the measured interval lies on the other side of that value",
}

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def gallery_page(entries: Sequence[Entry], figures: Sequence[str]) -> str:
    """Build the page.

    Args:
        entries: The studies, in display order.
        figures: The SVG text of each entry's figure.

    Returns:
        A complete HTML document without references to other files or servers.
    """
    counts = Counter(entry.verdict for entry in entries)
    cards = "\n".join(map(_card, entries, figures))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>Studies: claims of papers, measured</title>
<style>{STYLES}</style>
</head>
<body>
<header>
<h1>Claims of papers, measured</h1>
<p>Each study states a claim as numbers, measures it at a size that runs on an ordinary computer,
and a fixed rule gives the verdict. Claims that failed are shown in the same way as claims that were
reproduced.</p> <details><summary>How a verdict is reached</summary><dl>
{"".join(f"<dt>{word}</dt><dd>{text}</dd>" for word, text in [*RULE.items(), *NOTES.items()])}
</dl></details>
{_filter(counts, len(entries))} </header> <main><ul class="grid"> {cards} </ul></main> <dialog
aria-labelledby="large-title"><form method="dialog"><h2 id="large-title"></h2>
<button>Close</button></form><div></div></dialog> <footer><span id="state"
role="status"></span></footer> <script>{SCRIPT}</script> </body> </html>
"""


def _filter(counts: Counter[str], total: int) -> str:
    choices = [("", "All", total), *((str(v), str(v).capitalize(), counts[v]) for v in Verdict)]
    boxes = [
        f'<label><input type="radio" name="verdict" value="{value}"'
        f"{' checked' if not value else ''}{'' if number else ' disabled'}>"
        f"<span>{label} {number}</span></label>"
        for value, label, number in choices
    ]
    return f'<fieldset class="filter"><legend>Show verdict</legend>{"".join(boxes)}</fieldset>'


def _card(entry: Entry, figure: str) -> str:
    badge = entry.verdict.replace(" ", "-")
    change = f'<span class="badge changed">{escape(entry.change)}</span>' if entry.change else ""
    return f"""<li class="card" data-verdict="{escape(entry.verdict)}" id="{escape(entry.key)}">
<div class="top"><h2>{escape(entry.title)}</h2>
<span class="badges"><span class="badge {badge}">{escape(entry.verdict)}</span>{change}</span></div>
<button class="figure" data-title="{escape(entry.title)}"
aria-label="Enlarge the figure: {escape(entry.title)}">{inline_svg(figure, entry.key)}</button>
<p class="claim">{escape(entry.claim)}</p>
<dl><dt>Claimed</dt><dd>{escape(entry.claimed)}</dd>
<dt>Measured</dt><dd>{escape(entry.measured)}</dd></dl>
<div class="again"><code>{escape(entry.command)}</code></div>
<p class="meta">{origin(entry.paper)}, scale {escape(entry.scale)}, {entry.seconds:.1f} s</p>
</li>"""


def inline_svg(svg: str, prefix: str) -> str:
    """Prepare an SVG document for a page with several figures.

    Identifiers get a prefix, so that names in two figures do not collide. The figure's own style
    sheet, which would apply to the whole page, and its fixed size are removed.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', body)
    head, rest = body.split(">", 1)
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    return f"{head}>{rest}".strip()
