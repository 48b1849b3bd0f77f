"""The report of a run: one self-contained page with pictures and results, and one page per executed notebook.

Nothing is fetched when it is opened: pictures and styles stand in the files, scripts are left out.
"""

from __future__ import annotations

import base64
import re
from html import escape, unescape
from pathlib import Path

import cv2
import nbformat
import numpy as np
from nbconvert import HTMLExporter

from .book_math import formulas_to_svg
from .files import write

WIDGET = "application/vnd.jupyter.widget-view+json"
STYLE = """
:root { --ink:#1d2433; --soft:#5d6778; --line:#dfe3ea; --paper:#fff; --back:#f4f6f9;
        --ok:#1a7f4b; --bad:#c3202f; --badback:#fdecee; --link:#1f5fbf; color-scheme:light dark }
@media (prefers-color-scheme: dark) { :root { --ink:#e6e9ef; --soft:#9aa5b6; --line:#333b49; --paper:#1b212c;
        --back:#12161d; --ok:#4cc38a; --bad:#ff6b78; --badback:#3a1a1f; --link:#7db1ff } }
* { box-sizing:border-box } body { margin:0; background:var(--back); color:var(--ink);
    font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif }
main { max-width:62rem; margin:0 auto; padding:1.5rem 1rem 4rem } h1 { margin:0; line-height:1.2 } h2 { margin:2.2rem 0 .6rem }
a { color:var(--link); text-decoration:none } a:hover { text-decoration:underline } p { margin:.2rem 0 } .soft { color:var(--soft) }
article { display:flex; gap:1rem; align-items:flex-start; background:var(--paper); border:1px solid var(--line);
    border-left:5px solid var(--line); border-radius:.6rem; padding:.8rem; margin:.6rem 0 }
article.ok { border-left-color:var(--ok) } article.failed, article.interrupted { border-color:var(--bad); background:var(--badback) }
article > div { flex:1; min-width:0 } article h3 { margin:0; font-size:1.08rem }
.thumb { flex:0 0 11rem; display:block } .thumb img { width:100%; display:block; border-radius:.3rem; background:#fff }
.failed h3 a { color:var(--bad) } .badge { font-weight:600 } .ok .badge { color:var(--ok) } .failed .badge, .interrupted .badge, .error { color:var(--bad) }
.error { overflow-wrap:anywhere; font-weight:600 } pre { overflow-x:auto; font-size:.8rem }
.wide { overflow-x:auto; background:var(--paper); border:1px solid var(--line); border-radius:.6rem } summary { cursor:pointer }
table { border-collapse:collapse; min-width:min(100%,30rem) } th + th { text-align:right } th, td { padding:.4rem .8rem; text-align:left; border-bottom:1px solid var(--line) }
tr:last-child td { border-bottom:0 } td.number { text-align:right; font-variant-numeric:tabular-nums } code { font-size:.85em; overflow-wrap:anywhere }
@media (max-width:36rem) { article { flex-direction:column } .thumb { flex:none; width:100% } }
"""
PAGE_STYLE = """<style>
.book-bar { padding:.6rem 1rem; font-family:system-ui,sans-serif } .book-bar a { color:#1f5fbf; text-decoration:none }
body main { max-width:60rem; margin:0 auto } .jp-RenderedHTMLCommon img, .jp-OutputArea-output img { max-width:100%; height:auto }
@media (max-width:40rem) { .jp-InputPrompt, .jp-OutputPrompt { display:none !important } body.jp-Notebook { padding:.3rem !important } }
</style><p class="book-bar"><a href="../index.html">← all notebooks of this run</a></p>"""


def write_report(run_dir: Path, manifest: dict, heading: str = "Pose workbook", results: str | None = None) -> Path:
    """Write `index.html` of a run from its manifest (see `book.main`) and the executed notebooks beside it.

    Args:
        run_dir: where it is written.
        manifest: format, environment and records.
        heading: of the page.
        results: HTML of a table that stands above the notebooks, instead of the one of all metrics below them.
    """
    records = manifest["notebooks"]
    count = {status: sum(r["status"] == status for r in records) for status in ("ok", "failed", "interrupted")}
    seconds = sum(record.get("seconds", 0) for record in records)
    summary = ", ".join(f"{number} {status}" for status, number in count.items() if number) or "nothing has run yet"
    started = escape(manifest["started"][:16].replace("T", " "))
    body = [
        f"<h1>{escape(heading)}</h1>",
        f"<p class=soft>{started} · profile <b>{escape(manifest['profile'])}</b> · {summary} · {_duration(seconds)}</p>",
        *_failures(records),
        results or "",
        "<h2>Notebooks</h2>",
        *(_article(run_dir, record) for record in records),
        *(_results_table(records) if results is None else ()),
        _environment(manifest),
    ]
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>{escape(heading)}: {summary}</title><style>{STYLE}</style><main>{''.join(body)}</main></html>"
    )
    return write(run_dir / "index.html", page)


def notebook_page(executed: Path) -> Path:
    """Convert an executed notebook to a page beside it which needs neither a network nor scripts."""
    notebook = nbformat.read(executed, as_version=4)
    _freeze_widgets(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = formulas_to_svg(cell.source)
    exporter = HTMLExporter(embed_images=True)
    exporter.log.setLevel("ERROR")  # it warns about every picture without an alternative text
    page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": executed.stem, "path": str(executed.parent)}})
    page = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)
    return write(executed.with_suffix(".html"), re.sub(r"(<body\b[^>]*>)", lambda m: m[1] + PAGE_STYLE, page, count=1))


def first_picture(executed: Path, width: int = 480) -> str | None:
    """The first picture among a notebook's outputs as a small JPEG data URI, None when there is none."""
    for cell in nbformat.read(executed, as_version=4).cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            inside = re.search(r"data:image/(?:png|jpeg|gif);base64,([\w+/=\s]+)", data.get("text/html", ""))
            encoded = data.get("image/png") or data.get("image/jpeg") or data.get("image/gif") or (inside and inside[1])
            image = encoded and cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_COLOR)
            if image is not None and min(image.shape[:2]) >= 32:
                return _thumbnail(image, width)
    return None


def _thumbnail(image: np.ndarray, width: int) -> str:
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) if image.shape[1] > width else image
    # very tall contact sheets would push everything else off a phone's screen
    jpeg = cv2.imencode(".jpg", small[: width * 4 // 3], [cv2.IMWRITE_JPEG_QUALITY, 82])[1]
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _failures(records: list[dict]) -> list[str]:
    failed = [record for record in records if record["status"] == "failed"]
    return [f"<p class=error>✗ <a class=error href='{_link(r)}'>{escape(r['title'])}</a> failed</p>" for r in failed]


def _article(run_dir: Path, record: dict) -> str:
    status, title = record["status"], escape(record["title"])
    link = _link(record)
    notebook = run_dir / record.get("notebook", "-")
    picture = first_picture(notebook) if notebook.is_file() else None
    thumb = f"<a class=thumb href='{link}'><img src='{picture}' alt='first picture of {title}'></a>" if picture else ""
    words = [f"<span class=badge>{status}</span>"]
    words += [_duration(record["seconds"])] if "seconds" in record else []
    words += ["kept from an earlier run"] if record.get("kept") else []
    words += [f"<a href='{escape(record['notebook'])}'>notebook file</a>"] if notebook.is_file() else []
    values = " ".join(f"<code>{escape(f'{k}={v}')}</code>" for k, v in record.get("parameters", {}).items())
    heading = escape(record["heading"])
    return (
        f"<article class={status} id='{title}'>{thumb}<div><h3><a href='{link}'>{heading}</a></h3>"
        f"<p class=soft>{title}</p><p>{' · '.join(words)}</p>{_error(record)}<p class=soft>{values}</p></div></article>"
    )


def _error(record: dict) -> str:
    error = record.get("error")
    if not error:
        return ""
    text = f"<p class=error>{escape(error_text(error))}</p>"
    trace = re.sub(r"\x1b\[[0-9;]*m", "", error.get("traceback", ""))
    return text + (f"<details><summary>where</summary><pre>{escape(trace)}</pre></details>" if trace else "")


def _results_table(records: list[dict]) -> list[str]:
    """Metrics down, notebooks across: the same metric of several methods stands on one line."""
    owners = [record for record in records if record.get("results")]
    metrics = list(dict.fromkeys(metric for record in owners for metric in record["results"]))
    if not metrics:
        return []
    head = "".join(f"<th><a href='#{escape(r['title'])}'>{escape(r['title'])}</a></th>" for r in owners)
    rows = [
        f"<tr><td>{escape(metric)}</td>"
        + "".join(f"<td class=number>{escape(number_text(r['results'].get(metric)))}</td>" for r in owners)
        for metric in metrics
    ]
    return ["<h2>Results</h2><div class=wide><table><tr><th>metric</th>", head, "</tr>", *rows, "</table></div>"]


def _environment(manifest: dict) -> str:
    git = manifest.get("git")
    rows = {
        "Python": f"{manifest['python']} ({manifest['kernel']})",
        "machine": manifest["machine"],
        "git": f"{git['commit'][:12]}{', with uncommitted changes' if git['changed'] else ''}"
        if git
        else "not a checkout",
        **manifest["versions"],
    }
    lines = "".join(f"<tr><td>{escape(k)}</td><td><code>{escape(str(v))}</code></td></tr>" for k, v in rows.items())
    return (
        f"<h2>Made with</h2><details><summary>versions</summary><div class=wide><table>{lines}</table></div></details>"
    )


def _freeze_widgets(notebook: nbformat.NotebookNode) -> None:
    """Replace widgets by what they showed last: progress bars become text, others their plain text."""
    saved = notebook.metadata.pop("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            view = output.get("data", {}).pop(WIDGET, None)
            text = view and _widget_text(saved, view["model_id"])
            if text:
                output["data"]["text/plain"] = text


def _widget_text(saved: dict, model: str) -> str:
    """All texts of a widget and its children, in order; a bar of tqdm reads "100% 40/40 [00:12<00:00, 3.3it/s]"."""
    state = saved.get(model, {}).get("state", {})
    children = [_widget_text(saved, child.removeprefix("IPY_MODEL_")) for child in state.get("children", ())]
    own = state.get("value")
    return " ".join(
        filter(None, [unescape(re.sub(r"<[^>]*>", "", own)).strip() if isinstance(own, str) else "", *children])
    )


def _link(record: dict) -> str:
    return escape(record.get("page", f"#{record['title']}"))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def error_text(error: dict) -> str:
    """What a record says about its error: cell, name and message, as far as they are known."""
    where = f"cell [{error['cell']}]" if "cell" in error else None
    return ": ".join(filter(None, [where, error.get("name"), error["message"]]))


def number_text(value: object) -> str:
    """A metric as it stands in a table; nothing for None."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
