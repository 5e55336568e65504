"""What ComfyUI's page makes of a saved graph: links by slot, values by the place of their widgets in today's schema.

`schemas` is the answer to /object_info: {class: schema}.
"""

from kinetograph.tests.campaigns.valid_prompts import AUTOGROW, DYNAMIC, WIDGETS, fields_of

OURS = "Kinetograph"
SWITCHED_OFF = (2, 4)  # modes of a node
SEEDS = ("seed", "noise_seed")  # the page puts a widget of its own behind them, outside a DynamicCombo
UPLOADS = ("image_upload", "video_upload", "audio_upload")  # and a button behind a list that takes files


def to_prompt(graph, schemas):
    """A saved graph as the API prompt that the page posts; notes and other things without a schema are left out, and so
    is what is muted or bypassed."""
    links = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    return {
        str(node["id"]): {
            "class_type": node["type"],
            "inputs": {**dict(values_of(node, schemas)), **dict(links_of(node, schemas, links))},
            "_meta": {"title": node.get("title") or node["type"]},
        }
        for node in graph["nodes"]
        if node["type"] in schemas and node.get("mode", 0) not in SWITCHED_OFF
    }


def is_widget(field):
    return field.type in WIDGETS and not field.options.get("forceInput")


def values_of(node, schemas):
    """(name, value) of every widget of a saved node."""
    saved = iter(node.get("widgets_values") or [])
    yield from _values(fields_of(schemas[node["type"]]["input"]), saved)


def _values(fields, saved):
    """Values in the order of the schema; a widget that came later than the graph has its default."""
    for field in filter(is_widget, fields):
        value = next(saved, field.default)
        yield field.name, value
        if field.type == DYNAMIC and value in field.choices:
            yield from _values(field.inner(value), saved)
        if has_companion(field):
            next(saved, None)


def has_companion(field):
    """Whether the page saves one more value behind this one, which no prompt holds."""
    counts = field.options.get("control_after_generate") or field.name in SEEDS
    return bool(field.type == "INT" and counts) or any(field.options.get(upload) for upload in UPLOADS)


def links_of(node, schemas, links):
    """(name, [source, slot]) of every linked input that the node still has: the page drops the others."""
    fields = fields_of(schemas[node["type"]]["input"])
    grown = [socket for field in fields if field.type == AUTOGROW for socket in field.sockets]
    names = {field.name for field in [*fields, *grown]}
    for socket in node.get("inputs") or []:
        if socket.get("link") is not None and socket["name"] in names:
            yield socket["name"], links[socket["link"]]


def defaults_in(prompt, schemas):
    """ "node.widget" of every widget of our nodes that has the value of a fresh node, or none though it needs one.

    A widget that came since the prompt was saved is not in it.
    """
    return [
        f"{node['class_type'].removeprefix(OURS)}.{field.name}"
        for node in prompt.values()
        if node["class_type"].startswith(OURS)
        for field in widgets_in(node, schemas)
        if (field.required or field.name in node["inputs"])
        and node["inputs"].get(field.name, field.default) == field.default
    ]


def widgets_in(node, schemas):
    """Every widget that a node of a prompt shows, those of its choices included."""
    waiting = [*filter(is_widget, fields_of(schemas[node["class_type"]]["input"]))]
    for field in waiting:
        yield field
        if field.type == DYNAMIC:
            waiting += field.inner(node["inputs"].get(field.name, field.default))


def layout_of(schema):
    """What saved workflows hold on to: inputs and choices by name, widgets and outputs by their place."""
    outputs = [list(pair) for pair in zip(schema["output"], schema["output_name"], strict=True)]
    return {"inputs": _layout(fields_of(schema["input"])), "outputs": outputs}


def _layout(fields):
    return {field.name.split(".")[-1]: _place(field) for field in fields}


def _place(field):
    """The type of an input; for lists their words (names of files apart), for a DynamicCombo what its choices bring,
    for an Autogrow its first socket."""
    if field.type == DYNAMIC:
        return {key: _layout(field.inner(key)) for key in field.choices}
    if field.type == "COMBO":
        return [word for word in field.choices if "/" not in word]
    if field.type == AUTOGROW:
        return f"{field.sockets[0].name} and on: {field.sockets[0].type}"
    return field.type


def moved(then, now):
    """What a node saved with the layout `then` would miss or mix up now: a list of complaints."""
    found = list(_moved(then["inputs"], now["inputs"], ""))
    if now["outputs"][: len(then["outputs"])] != then["outputs"]:
        found.append(f"outputs {then['outputs']} became {now['outputs']}")
    return found


def _moved(then, now, place):
    """New widgets may stand behind all others, but not behind those of a choice: what follows it would move."""
    before, after = (
        [name for name, what in inputs.items() if what in WIDGETS or not isinstance(what, str)]
        for inputs in (then, now)
    )
    if before != (after if place else after[: len(before)]):
        yield f"widgets {place}{before} became {after}"
    for name, what in then.items():
        if isinstance(what, str):
            # an input may take more kinds than it did
            if not set(what.split(",")) <= set(str(now.get(name)).split(",")):
                yield f"{place}{name} was {what} and is {now.get(name)}"
            continue
        lost = [word for word in what if word not in now.get(name, ())]
        if lost:
            yield f"{place}{name} no longer has {lost}"
        elif isinstance(what, dict):
            for key in what:
                yield from _moved(what[key], now[name][key], f"{place}{name}={key}: ")
