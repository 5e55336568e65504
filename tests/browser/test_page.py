"""What the page makes of our words: errors, missing models, help."""

from pathlib import Path

from kinetograph.tests.browser.conftest import MOTION_LORAS, PUBLISHED

LATENT, SAMPLER = "KinetographVideoLatent", "KinetographVideoSampler"


def test_a_wrong_value_shows_our_words_at_its_widget(tab):
    tab.open("try_cogvideox")
    tab.ask("set", LATENT, "num_frames", 10)
    tab.find("queue-button").click()
    tab.find("error-overlay-see-errors").click()
    tab.page.get_by_label("Info for Video Latent - num_frames").click()
    words = "one latent frame after the first: got num_frames=10, use 9 or 13."
    assert words in tab.find("error-group-execution").inner_text().replace("\n", " ")
    marked = tab.page.evaluate(
        "() => app.graph._nodes.filter((node) => node.has_errors).map(({ type }) => type)"
    )
    assert marked == [LATENT] and tab.ended() == []


def test_help_is_our_page(tab):
    tab.open("try_cogvideox")
    tab.page.mouse.click(*tab.ask("titleOf", SAMPLER))
    tab.find("info-button").click()
    tab.page.get_by_role("heading", name="Inputs").wait_for()
    assert tab.page.get_by_text(
        "At equal settings it gives what KSampler gives on the same MODEL"
    ).is_visible()
    assert tab.page.get_by_text("How strongly the prompt, or SVD's picture, pulls.").count() == 1


def test_missing_models_offers_our_download(tab, hub):
    """A template with its model at an address of this machine, which is one of those that the page allows."""
    name = PUBLISHED[0]
    graph = tab.ask("template", "svd_xt_image_to_video")
    (loader,) = [node for node in graph["nodes"] if node["type"] == "KinetographSVDLoader"]
    address = f"{hub.address}/{MOTION_LORAS}/resolve/main/{name}"
    loader["widgets_values"][0] = name
    loader["properties"]["models"] = [{"name": name, "url": address, "directory": "checkpoints"}]
    tab.ask("load", graph, "svd_xt")
    tab.find("error-overlay-see-errors").click()
    offer = tab.find("error-group-missing-model")
    assert name in offer.inner_text() and "Unknown" not in offer.inner_text()
    with tab.page.expect_download() as started:
        tab.find("missing-model-download").click()
    assert started.value.suggested_filename == name
    assert Path(started.value.path()).read_bytes() == hub.repositories[MOTION_LORAS][name]
