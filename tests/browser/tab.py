"""One tab of a browser with ComfyUI's page in it."""

import os
import re
from pathlib import Path

SCRIPT = Path(__file__).with_name("page.js")
ENDS = ("execution_success", "execution_error", "execution_interrupted")
SCREENSHOTS = "KINETOGRAPH_SCREENSHOTS"
RUN_SECONDS = 90


class Tab:
    """A page of a browser; `ask` calls a function of page.js, the rest is what a person does."""

    def __init__(self, page, address):
        self.page = page
        page.set_default_timeout(20_000)
        page.add_init_script(path=SCRIPT)
        page.goto(address)
        page.wait_for_function("() => window.kinetograph.isReady()")
        self.ask("listen")

    def ask(self, name, *values):
        """What a function of page.js answers."""
        return self.page.evaluate("([name, values]) => kinetograph[name](...values)", [name, values])

    def find(self, test_id):
        return self.page.get_by_test_id(test_id)

    def open(self, name):
        """Open a template as it is shipped; returns its graph."""
        graph = self.ask("template", name)
        self.ask("load", graph, name)
        return graph

    def prompt(self):
        """{node id: class and inputs}, what Run would post."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def events(self, kind):
        """Details of every event of a kind that the page got."""
        seen = self.page.evaluate("() => kinetograph.events")
        return [detail for name, detail in seen if name == kind]

    def select(self, kind):
        """Click the title of a node, once more where the page was still busy with another thing."""
        for _ in range(5):
            self.page.mouse.click(*self.ask("titleOf", kind))
            self.page.wait_for_timeout(500)
            if self.find("info-button").is_visible():
                return
        raise AssertionError(f"{kind} could not be selected")

    def fit(self):
        """Show the whole graph, as the page's own command does: what is outside of the window shows no video."""
        self.page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        # it glides there
        self.page.wait_for_timeout(500)

    def run(self, button="queue-button"):
        """Press Run and wait for the end; fails with the server's words unless that is a success."""
        self.find(button).click()
        self.wait_for_end()
        assert self.ended() == ["execution_success"], self.events("execution_error")

    def wait_for_end(self, seconds=RUN_SECONDS):
        ended = f"() => kinetograph.events.some(([kind]) => {list(ENDS)}.includes(kind))"
        self.page.wait_for_function(ended, timeout=seconds * 1000)

    def ended(self):
        """How the runs ended that the page saw."""
        return [kind for kind, _ in self.page.evaluate("() => kinetograph.events") if kind in ENDS]

    def playing_video(self):
        """Play the largest video of the page; what the browser says of it once it moves."""
        self.page.wait_for_function("() => kinetograph.largestVideo()?.readyState >= 2")
        return self.ask("play")

    def drop(self, name, content, kind):
        """Drop a file on the canvas; `kind` is its media type."""
        transfer = self.page.evaluate_handle(
            """([name, bytes, type]) => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
                return transfer;
            }""",
            [name, list(content), kind],
        )
        for event in ("dragenter", "dragover", "drop"):
            place = {"dataTransfer": transfer, "clientX": 800, "clientY": 500}
            self.page.dispatch_event("#graph-canvas", event, place)

    def screenshot(self, name, fit=False):
        """Keep a picture for people, where the variable names a folder; `fit` shows the whole graph in it."""
        if folder := os.environ.get(SCREENSHOTS):
            if fit:
                self.fit()
            path = Path(folder) / (re.sub(r"[^\w.-]+", "-", name) + ".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            # a busy machine draws slowly
            self.page.screenshot(path=path, timeout=40_000)
