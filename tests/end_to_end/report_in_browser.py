#!/usr/bin/env python3
"""Opens the reports of a training run, a comparison and a sensitivity analysis in headless Chromium, at desktop and phone width, light and dark.
Skipped (77) without a browser (scripts/setup --clients installs one).

usage: report_in_browser.py GEMMA_QAT_PROGRAM [--screenshots FOLDER]
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from browser import Browser, find_browser

SOURCE = pathlib.Path(__file__).resolve().parents[2]
WINDOWS = [("desktop", 1280, 900), ("phone", 390, 844)]
SCHEMES = ["light", "dark"]
LEAST_TEXT_CONTRAST = 4.5  # WCAG 2.2, 1.4.3
LEAST_MARK_CONTRAST = 3.0  # 1.4.11
LEAST_TEXT_SIZE = 11  # px
WORDS = ["Ada", "Hugo", "June", "Felix", "Cora", "Gus"]

# What a reader needs of the page, as the browser lays it out and paints it.
FACTS = """(() => {
  const numbers = color => (color.match(/[\\d.]+/g) || []).map(Number);
  const opaque = color => color !== "none" && color !== "transparent" && (numbers(color)[3] ?? 1) > 0;
  const light = color => {
    const [r, g, b] = numbers(color).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    while (element && !opaque(getComputedStyle(element).backgroundColor)) element = element.parentElement;
    return element ? getComputedStyle(element).backgroundColor : "rgb(255, 255, 255)";
  };
  const contrast = (color, element) => {
    const [a, b] = [light(color), light(behind(element))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const scale = element => element instanceof SVGElement ? Math.hypot(element.getScreenCTM().a, element.getScreenCTM().b) : 1;
  const texts = [];
  for (const element of document.querySelectorAll("body *")) {
    if (![...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
    if (element.tagName === "title" || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    texts.push({text: element.textContent.slice(0, 40), contrast: contrast(element instanceof SVGElement ? style.fill : style.color, element),
                size: parseFloat(style.fontSize) * scale(element)});
  }
  const look = mark => {
    const style = getComputedStyle(mark);
    return style.strokeDasharray + "|" + (style.fill === "none" ? "" : mark.getAttribute("d").replace(/^M\\S+ \\S+?(?=[a-z])/, ""));
  };
  const plots = [...document.querySelectorAll("svg")].map(svg => ({
    title: svg.getAttribute("aria-label"),
    keys: [...svg.querySelectorAll(".key")].map(look),
    curves: [...svg.querySelectorAll(".curve:not(.key), .area")].map(curve => getComputedStyle(curve).strokeDasharray),
    marks: [...svg.querySelectorAll("path")].map(mark => getComputedStyle(mark)).map(style => opaque(style.stroke) ? style.stroke : style.fill)
           .filter(opaque).map(color => contrast(color, svg)),
    outside: [...svg.querySelectorAll("text")].filter(text => {
      const [inner, outer] = [text.getBoundingClientRect(), svg.getBoundingClientRect()];
      return inner.left < outer.left - 1 || inner.right > outer.right + 1 || inner.top < outer.top - 1 || inner.bottom > outer.bottom + 1;
    }).map(text => text.textContent),
  }));
  const page = document.documentElement;
  const boxes = [...document.querySelectorAll(".figure")];
  return {
    background: light(getComputedStyle(document.body).backgroundColor), width: page.clientWidth, scrollWidth: page.scrollWidth, texts, plots,
    headings: [...document.querySelectorAll("h2")].map(heading => heading.textContent),
    scrolls: boxes.filter(box => box.scrollWidth > box.clientWidth + 1).map(box => getComputedStyle(box).overflowX),
    outside: [...document.querySelectorAll("main, nav, p, h1, h2, .figure")].filter(e => e.getBoundingClientRect().right > page.clientWidth + 1)
             .map(e => e.textContent.slice(0, 40)),
    broken: [...document.querySelectorAll("nav a")].filter(a => !document.querySelector(a.getAttribute("href"))).length,
  };
})()"""


def run(program, *arguments):
    process = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=600)
    if process.returncode != 0:
        sys.exit(f"{arguments[0]} failed: {process.stderr}")


def write_lines(file, entries):
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return file


def make_run_report(program, folder):
    """Three steps of the tiny model."""
    model = folder / "model"
    model.mkdir()
    shutil.copy(SOURCE / "tests/trainers/tiny_model/config.json", model)
    shutil.copy(SOURCE / "tests/golden/data/tokenizer.json", model)
    data = write_lines(folder / "data.jsonl", [{"text": f"{a} plus {b} is {a + b}."} for a in range(6) for b in range(9)])
    (folder / "run.json").write_text(json.dumps({
        "model": str(model), "initialize": "random", "plan": "q4_0", "dtype": "float32", "threads": 1, "sequence_length": 64,
        "gradient_accumulation": 1, "data": {"train": [str(data)], "eval": [str(data)]}, "eval": {"every_steps": 1, "documents": 4},
        "optimizer": {"warmup_steps": 1}, "steps": 3, "out": str(folder / "run")}))
    run(program, "train", folder / "run.json")
    return folder / "run/report.html"


def make_comparison_report(program, folder):
    """The quickstart's model, and what two methods and another layout make of it, on two files and with questions."""
    base = SOURCE / "examples/quickstart/model"
    models = [f"BF16={base}"]
    for name, plan, method in (("RTN", "q4_0", "rtn"), ("MSE", "q4_0", "mse"), ("wide <Q8_0>", "q4_0-q8-tables", "rtn")):
        out = folder / f"{plan}-{method}"
        run(program, "quantize", "--model", base, "--plan", plan, "--method", method, "--out", out)
        models.append(f"{name}={out}")
    chats = write_lines(folder / "chats.jsonl", [
        {"messages": [{"role": "user", "content": f"Who is the best friend of {a}?"}, {"role": "assistant", "content": f"{b} is, & has been for years."}]}
        for a in WORDS for b in WORDS if a != b])
    texts = write_lines(folder / "texts.jsonl", [{"text": f"{a} and {b} own a drum,\na lamp and a clock."} for a in WORDS for b in WORDS[:1]])
    questions = write_lines(folder / "questions.jsonl", [
        {"question": f"Which of them does {a} like best, and why would anyone who knows the others say that it has to be the one that is named first?",
         "choices": [f"{b}.", "Noodles.", "Beans."], "answer": i % 3} for i, (a, b) in enumerate((a, b) for a in WORDS for b in WORDS[:4])])
    report = folder / "comparison.html"
    run(program, "compare", *models, "--data", chats, "--data", texts, "--questions", questions, "--prompts", 2, "--max-new", 4,
        "--metrics", f"QAT={folder / 'run/metrics.jsonl'}", "--metrics", f"again={folder / 'run/metrics.jsonl'}", "--report", report)
    return report


def make_sensitivity_report(program, folder):
    """Which parts of the quickstart's model suffer, on the comparison's chats."""
    report = folder / "sensitivity.html"
    run(program, "compare", "--sensitivity", SOURCE / "examples/quickstart/model", "--plan", "q4_0", "--data", folder / "chats.jsonl",
        "--rows", 1, "--sequence-length", 128, "--report", report)
    return report


def faults_of(facts, scheme, complaints, requests):
    """What is wrong with the page, in words."""
    faults = [f"console: {complaint}" for complaint in complaints]
    faults += [f"loads {url}" for url in requests[1:]]
    if (facts["background"] > 0.5) != (scheme == "light"):
        faults.append(f"the page is not {scheme}")
    if facts["scrollWidth"] > facts["width"]:
        faults.append(f"the page is {facts['scrollWidth']} wide in a window of {facts['width']}")
    faults += [f"sticks out to the right: {text!r}" for text in facts["outside"]]
    faults += [f"a box that is too narrow does not scroll: overflow-x {value}" for value in facts["scrolls"] if value != "auto"]
    for text in facts["texts"]:
        if text["contrast"] < LEAST_TEXT_CONTRAST:
            faults.append(f"contrast {text['contrast']:.2f}: {text['text']!r}")
        if text["size"] < LEAST_TEXT_SIZE:
            faults.append(f"{text['size']} px: {text['text']!r}")
    for plot in facts["plots"]:
        if len(set(plot["keys"])) != len(plot["keys"]):
            faults.append(f"{plot['title']}: series that differ in their colour only: {plot['keys']}")
        drawn = {look.split("|")[0] for look in plot["keys"] if look.split("|")[0] != "none"}
        if not drawn <= set(plot["curves"]):
            faults.append(f"{plot['title']}: the legend shows dashes that no curve has: {drawn - set(plot['curves'])}")
        faults += [f"{plot['title']}: outside the plot: {text!r}" for text in plot["outside"]]
        faults += [f"{plot['title']}: contrast {value:.2f} of a mark" for value in plot["marks"] if value < LEAST_MARK_CONTRAST]
    if facts["broken"]:
        faults.append(f"{facts['broken']} links lead nowhere")
    if not facts["plots"] or len(facts["texts"]) < 50:
        faults.append("the page is empty")
    return faults


def look_at(browser, report, name, screenshots):
    """The faults of a report in every window and scheme."""
    faults = []
    for window, width, height in WINDOWS:
        for scheme in SCHEMES:
            browser.open(report, width, height, scheme)
            facts = browser.evaluate(FACTS)
            found = faults_of(facts, scheme, browser.complaints(), browser.requests())
            print(f"{name}, {window}, {scheme}: {len(facts['texts'])} texts, {len(facts['plots'])} plots, {len(found)} faults")
            faults += [f"{name}, {window}, {scheme}: {fault}" for fault in found]
            if screenshots:
                browser.screenshot(screenshots / f"{name}-{window}-{scheme}.png")
    return faults


def check_that_faults_are_found(browser, folder):
    """Opens a page that has every fault."""
    page = folder / "faulty.html"
    page.write_text("""<!doctype html><meta name="viewport" content="width=device-width"><body style="background: white"><h1 style="color: #999">pale</h1><p style="font-size: 9px">small</p>
        <nav><a href="#nowhere">broken</a></nav><div class="figure" style="overflow-x: hidden; width: 100px"><div style="width: 3000px">wide</div></div>
        <p style="width: 3000px">sticks out</p><img src="missing.png"><script>console.error("said")</script>
        <svg aria-label="plot"><path class="key curve" stroke="#eee" fill="none" d="M0 0h9"/><path class="key curve" stroke="#000" fill="none" d="M0 9h9"/>
        <path class="key curve" stroke="#000" fill="none" stroke-dasharray="7 1" d="M0 9h9"/><text x="-90" y="20">hidden</text></svg>""")
    browser.open(page, 390, 844, "dark")
    found = "\n".join(faults_of(browser.evaluate(FACTS), "dark", browser.complaints(), browser.requests()))
    for fault in ("said", "missing.png", "not dark", "wide in a window of 390", "sticks out", "overflow-x hidden", "'pale'", "9 px: 'small'",
                  "in their colour only", "no curve has", "outside the plot: 'hidden'", "of a mark", "lead nowhere", "is empty"):
        if fault not in found:
            sys.exit(f"a page with planted faults was opened and {fault!r} not reported:\n{found}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--screenshots", type=pathlib.Path, help="folder for pictures of what was seen")
    arguments = parser.parse_args()
    program = find_browser()
    if program is None:
        print("skipped: no Chromium is installed (scripts/setup --clients installs one; $CHROMIUM names another)")
        return 77
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gemma-qat-") as name:
        folder = pathlib.Path(name)
        reports = {name: make(arguments.program, folder) for name, make in (
            ("run", make_run_report), ("comparison", make_comparison_report), ("sensitivity", make_sensitivity_report))}
        with Browser(program) as browser:
            check_that_faults_are_found(browser, folder)
        faults = []
        for name, report in reports.items():
            with Browser(program) as browser:
                faults += look_at(browser, report, name, arguments.screenshots)
    print("\n".join(faults) if faults else "no faults")
    return 1 if faults else 0


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"  # threads that wait for each other would take minutes beside other tests
    sys.exit(main())
