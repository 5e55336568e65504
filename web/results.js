/**
 * Results on the nodes that write clips, as the newest run left them.
 *
 * The page shows a node's video or picture beside what the node showed before: a new picture never takes the
 * place of a video, a new video leaves the picture standing, and a file that no browser plays leaves everything.
 * It draws only the first frame of a gif, and it does not draw the text of a result.
 */
import { ANIM_PREVIEW_WIDGET, app } from "../../scripts/app.js";
import { ComfyWidgets } from "../../scripts/widgets.js";

const WRITERS = ["KinetographVideoCombine", "KinetographVAEDecodeToVideo", "KinetographVideoContinue"];
const SHOWN = ["video-preview", "$$canvas-image-preview", ANIM_PREVIEW_WIDGET];
const SAID = "kinetograph-said";
const PICTURE_HEIGHT = 220;

function removeWidgets(node, names) {
  for (const widget of (node.widgets ?? []).filter(({ name }) => names.includes(name))) {
    widget.onRemove?.();
    node.widgets.splice(node.widgets.indexOf(widget), 1);
  }
}

/** Forget what was shown; the page then loads the new result as its kind asks for. */
function clear(node) {
  removeWidgets(node, SHOWN);
  // a node that samples and writes has previews, which the page would load in the place of its video
  const { graph, id } = node;
  delete app.nodePreviewImages?.[graph?.isRootGraph === false ? `${graph.id}:${id}` : id];
  node.imgs = node.images = node.videoContainer = node.previewMediaType = undefined;
}

/** Room for an animated picture, which takes what the node has left; a video asks for its own. */
function makeRoom(node, result) {
  const [width, height] = node.size;
  const needed = node.computeSize()[1] + PICTURE_HEIGHT;
  const isPicture = /\.(gif|webp)$/.test(result?.images?.[0]?.filename ?? "");
  if (isPicture && height < needed) node.setSize([width, needed]);
}

/** Show sentences about the result below the widgets, or none. */
function say(node, sentences) {
  removeWidgets(node, [SAID]);
  if (!sentences.length) return;
  const { widget } = ComfyWidgets.STRING(node, SAID, ["STRING", { multiline: true }], app);
  widget.value = sentences.join("\n\n");
  widget.serialize = widget.options.serialize = false;
  widget.options.read_only = true;
  widget.options.getMinHeight = () => 60;
  widget.options.getMaxHeight = () => 120;
  if (widget.element) widget.element.readOnly = true;
}

app.registerExtension({
  name: "kinetograph.results",
  nodeCreated(node) {
    if (!WRITERS.includes(node.comfyClass)) return;
    const { onExecuted, onDrawBackground } = node;
    node.onExecuted = function (result) {
      clear(this);
      onExecuted?.apply(this, arguments);
      say(this, result?.text ?? []);
      makeRoom(this, result);
      this.setDirtyCanvas?.(true, true);
    };
    node.onDrawBackground = function () {
      onDrawBackground?.apply(this, arguments);
      if (this.images?.[0]?.filename?.endsWith(".gif")) this.animatedImages = true;
    };
  },
});
