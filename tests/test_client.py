"""Another program runs the main job against the real app: gradio_client, the bundled model, no page."""

from pathlib import Path

import gradio_client
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from readme import blocks

from razor.minicanvas import tasks
from razor.minicanvas.dataset import parse_target
from razor.patches import Patch

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def client(app_url, tmp_path_factory):
    return Client(app_url, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))


def test_only_the_typed_endpoints_are_offered(client):
    offered = client.view_api(return_format="dict")["named_endpoints"]
    assert list(offered) == ["/score", "/unlearn", "/predict", "/export"]
    assert [made["label"] for made in offered["/unlearn"]["returns"]] == ["1st", "2nd"]
    assert offered["/export"]["returns"][0]["python_type"]["type"] == "filepath"
    for name in ("/predict", "/export"):
        assert offered[name]["parameters"][-1]["parameter_name"] == "anyway"


def of_the_app(app_url, folder, jobs):
    """A Client of the app wherever it is, and what it asked for kept."""

    class Here(Client):
        def __init__(self, _address):
            super().__init__(app_url, verbose=False, download_files=folder)

        def submit(self, *args, **kwargs):
            jobs.append(super().submit(*args, **kwargs))
            return jobs[-1]

    return Here


def test_the_readmes_lines_forget_a_style_check_it_and_take_it_away(client, app_url, tmp_path, monkeypatch):
    typed, jobs = {}, []
    monkeypatch.setattr(gradio_client, "Client", of_the_app(app_url, tmp_path / "downloads", jobs))
    monkeypatch.chdir(tmp_path)
    tasks.task(parse_target("style:thermal")).forget.test[0].image.save("picture.png")
    (block,) = blocks("python", "From another program")
    exec(compile(block, "README.md", "exec"), typed)
    run, patch, said = (typed[name] for name in ("run", "patch", "said"))
    first = jobs[0].outputs()[0]
    assert first[0]["round"] == 1 and first[1] is None  # told as it came, before there was a file
    assert run["before"]["forget_accuracy"]["value"] > 0.95 and run["after"]["forget_accuracy"]["value"] < 0.1
    assert Patch.load(Path(patch)).parameters_edited == run["parameters_edited"]
    assert said["before"][0]["a thermal image"] > 0.9 > said["after"][0]["a thermal image"]
    assert Path(typed["clip"]).suffix == ".zip"
    read = Patch.load(Path(patch))
    Patch(read.deltas, read.recipe, dict.fromkeys(read.base, "0" * 16)).save(Path("other.safetensors"))
    sent = {"pictures": [handle_file("picture.png")], "patch": handle_file("other.safetensors")}
    with pytest.raises(AppError, match=r"made for another model: .* With anyway=True it is taken all the same"):
        client.predict(texts=["a thermal image", "a photo"], **sent, api_name="/predict")
    again = client.predict(texts=list(said["after"][0]), **sent, anyway=True, api_name="/predict")
    assert again["after"] == said["after"]


def test_a_mistake_reaches_the_caller_in_words(client):
    with pytest.raises(AppError, match="write axis:name, such as object:cat"):
        client.predict(forget="a cat", api_name="/score")
