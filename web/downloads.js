/**
 * "Download now" on Model Download: this node alone goes into the queue, also while the graph passes it over, and the
 * lists of files are read anew when it is done. Meanwhile the button takes the download back, and no other prompt.
 *
 * Progress and errors come from the server as for any prompt, so the page shows them on the node by itself.
 */
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const NODE = "KinetographModelDownload";
const START = "Download now";
const CANCEL = "Cancel download";
// what the key R does: lists of files, and what the page knows of missing ones
const REFRESH = "Comfy.RefreshNodeDefinitions";
const SUCCESS = "execution_success";
const ENDS = [SUCCESS, "execution_error", "execution_interrupted"];

/** What the server calls a node: its id behind those of the subgraphs that it stands in. */
function executionId(node, graph) {
  if (node.graph === graph) return String(node.id);
  for (const outer of graph.nodes.filter(({ subgraph }) => subgraph)) {
    const inner = executionId(node, outer.subgraph);
    if (inner) return `${outer.id}:${inner}`;
  }
}

/** Whether a widget is an input of its node: the button and the text that the server sends are none. */
function isSaved({ serialize, options }) {
  return serialize !== false && options?.serialize !== false;
}

/** A prompt of this node and no other, with the values of its widgets. */
function promptOf(node) {
  const root = app.rootGraph ?? app.graph;
  const values = node.widgets.filter(isSaved).map(({ name, value }) => [name, value]);
  const alone = { class_type: NODE, inputs: Object.fromEntries(values), _meta: { title: node.title } };
  return { output: { [executionId(node, root)]: alone }, workflow: root.serialize() };
}

/** The server's words when it refuses a prompt, shown as an error of a run is: only the page's own Run shows them so. */
function showRefusal(prompt, error) {
  const [node_id] = Object.keys(prompt.output);
  const refused = Object.values(error.response?.node_errors ?? {}).flatMap(({ errors }) => errors);
  const words = refused.map(({ message, details }) => `${message}: ${details}`);
  api.dispatchCustomEvent("execution_error", {
    prompt_id: "",
    timestamp: Date.now(),
    node_id,
    node_type: NODE,
    executed: [],
    exception_type: error.name,
    exception_message: words.join("\n") || error.message,
    traceback: [],
  });
}

/** One prompt from the post to its end. */
class Job {
  ends = new Map();
  hear = ({ type, detail }) => {
    this.ends.set(detail?.prompt_id, type);
    this.look?.();
  };

  /** Resolves to how the prompt ended, which may come before the answer to the post. Rejects when it is refused. */
  async run(prompt) {
    for (const kind of ENDS) api.addEventListener(kind, this.hear);
    try {
      this.id = (await api.queuePrompt(0, prompt)).prompt_id;
      while (!this.ends.has(this.id)) await new Promise((heard) => (this.look = heard));
      return this.ends.get(this.id);
    } finally {
      for (const kind of ENDS) api.removeEventListener(kind, this.hear);
    }
  }

  /** Running or still waiting: no other prompt is touched, and one that the server has lost ends, too. */
  async cancel() {
    await api.deleteItem("queue", this.id);
    await api.interrupt(this.id);
    this.hear({ type: "execution_interrupted", detail: { prompt_id: this.id } });
  }
}

/** The page draws a node that the graph passes over faintly, its widgets too; this button works and looks like it. */
function drawPlainly(node, button) {
  const { onDrawForeground } = node;
  node.onDrawForeground = function (context, { low_quality }) {
    onDrawForeground?.apply(this, arguments);
    if (this.flags.collapsed) return;
    context.save();
    context.globalAlpha = 1;
    button.drawWidget?.(context, { width: this.size[0], showText: !low_quality });
    context.restore();
  };
}

app.registerExtension({
  name: "kinetograph.downloads",
  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    let job;
    const press = async () => {
      if (job) return job.id && job.cancel();
      job = new Job();
      show(CANCEL);
      const prompt = promptOf(node);
      const end = await job.run(prompt).catch((error) => showRefusal(prompt, error));
      job = undefined;
      show(START);
      if (end === SUCCESS) await app.extensionManager.command.execute(REFRESH);
    };
    const button = node.addWidget("button", "download", null, press, { serialize: false });
    // nothing of it is saved: values of widgets are saved by their place
    button.serialize = false;
    drawPlainly(node, button);
    const show = (words) => {
      button.label = words;
      node.setDirtyCanvas(true, true);
    };
    show(START);
  },
});
