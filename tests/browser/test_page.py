"""What the page makes of our words: errors, missing models, help."""

from pathlib import Path

import pytest

from kinetograph.tests.browser.conftest import PUBLISHED, SVD_XT

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
    tab.select(SAMPLER)
    tab.find("info-button").click()
    tab.page.get_by_role("heading", name="Inputs").wait_for()
    assert tab.page.get_by_text(
        "At equal settings it gives what KSampler gives on the same MODEL"
    ).is_visible()
    assert tab.page.get_by_text("How strongly the prompt, or SVD's picture, pulls.").count() == 1


@pytest.fixture
def absent(server):
    """A published file that a template names and that this machine does not have."""
    place = server.base / "models" / "checkpoints" / PUBLISHED[SVD_XT][0]
    moved = place.rename(place.with_suffix(".away"))
    yield place.name
    moved.rename(place)


def test_missing_models_offers_our_download(absent, tab, hub):
    """The template as it is, but for the hub: it is on this machine, at an address that the page takes."""
    graph = tab.ask("template", "svd_xt_image_to_video")
    (model,) = [model for node in graph["nodes"] for model in node["properties"].get("models", ())]
    model["url"] = model["url"].replace("https://huggingface.co", hub.address)
    tab.ask("load", graph, "svd_xt_image_to_video")
    tab.find("error-overlay-see-errors").click()
    offer = tab.find("error-group-missing-model")
    assert absent in offer.inner_text() and "Unknown" not in offer.inner_text()
    with tab.page.expect_download() as started:
        tab.find("missing-model-download").click()
    assert started.value.suggested_filename == absent == model["name"]
    assert Path(started.value.path()).read_bytes() == hub.repositories[SVD_XT][absent]
