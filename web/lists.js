/**
 * Lists inside a choice (a DynamicCombo), such as the files of LoRA Stack, read anew when all others are.
 *
 * The page looks for a list by the name of its widget alone, and finds none whose name holds that of a choice.
 */
import { app } from "../../scripts/app.js";

const OURS = "Kinetograph";

/** Every node, those in subgraphs included. */
function* nodesIn(graph) {
  for (const node of graph.nodes) {
    yield node;
    if (node.subgraph) yield* nodesIn(node.subgraph);
  }
}

function inputOf({ required, optional }, name) {
  return required?.[name] ?? optional?.[name];
}

/** The values that a schema has for a widget named "choice.list"; nothing for any other widget. */
function valuesOf(widgets, { name, type }, schema) {
  const [choice, list] = name.split(".");
  if (type !== "combo" || !list) return;
  const chosen = widgets.find((widget) => widget.name === choice)?.value;
  const options = inputOf(schema.input, choice)?.[1]?.options ?? [];
  const inputs = options.find(({ key }) => key === chosen)?.inputs;
  const [kind, more] = (inputs && inputOf(inputs, list)) ?? [];
  return Array.isArray(kind) ? kind : more?.options;
}

app.registerExtension({
  name: "kinetograph.lists",
  refreshComboInNodes(schemas) {
    for (const node of nodesIn(app.rootGraph ?? app.graph)) {
      if (!node.comfyClass?.startsWith(OURS)) continue;
      for (const widget of node.widgets ?? []) {
        const values = valuesOf(node.widgets, widget, schemas[node.comfyClass]);
        if (values) widget.options.values = values;
      }
    }
  },
});
