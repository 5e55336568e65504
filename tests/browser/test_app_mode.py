"""App mode: a template without its graph, with the controls that matter, and a video that comes out."""

TEMPLATE = "try_cogvideox"
WORDS = "a blue square moving up"


def test_a_template_runs_as_an_app(tab):
    graph = tab.ask("template", TEMPLATE)
    graph["extra"]["linearMode"] = True
    tab.ask("load", graph, TEMPLATE)
    chosen = graph["extra"]["linearData"]["inputs"]
    controls = tab.find("app-mode-widget-item")
    controls.first.wait_for()
    names = [words.splitlines()[0] for words in controls.all_inner_texts()]
    assert len(chosen) >= 3 and names == [name for _, name in chosen]
    controls.first.get_by_role("textbox").fill(WORDS)
    tab.ask("set", "KinetographVideoSampler", "steps", 4)
    assert WORDS in [node["inputs"].get("text") for node in tab.prompt().values()]
    tab.run("linear-run-button-icon")
    video = tab.playing_video()
    assert (video["width"], video["height"], video["error"]) == (64, 64, None)
