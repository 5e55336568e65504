/** What the tests ask of ComfyUI's page; it runs in the page itself, before the page's own scripts. */
const EVENTS = [
  "progress", "executed", "b_preview", "execution_start", "execution_success", "execution_error",
  "execution_interrupted",
];

window.kinetograph = {
  /** [kind, detail] of everything that the server said since the last look. */
  events: [],

  listen() {
    const { api } = window.comfyAPI.api;
    for (const kind of EVENTS) {
      api.addEventListener(kind, ({ detail }) =>
        this.events.push([kind, detail instanceof Blob ? detail.size : JSON.parse(JSON.stringify(detail ?? null))]),
      );
    }
  },

  isReady() {
    return Boolean(window.app?.vueAppReady && app.graph && app.extensionManager?.workflow?.activeWorkflow);
  },

  async template(name) {
    const answer = await fetch(`/api/workflow_templates/ComfyUI-Kinetograph/${name}.json`);
    return answer.json();
  },

  async load(graph, name) {
    await app.loadGraphData(graph, true, true, name);
    // the page looks for what is missing and draws once more
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  },

  /** What would make a node red, in words: nothing when a graph is well. */
  complaints() {
    return app.graph._nodes.flatMap((node) => {
      const found = (node.widgets ?? []).filter(({ type }) => type === "combo").flatMap((widget) => this.absent(widget));
      if (!(node.type in LiteGraph.registered_node_types)) found.push("its class is not known");
      if (node.has_errors) found.push("the page marks it");
      return found.map((words) => `${node.id} ${node.type}: ${words}`);
    });
  },

  absent({ name, value, options }) {
    const values = typeof options.values === "function" ? options.values() : options.values;
    return values.includes(value) ? [] : [`${name} has no choice ${JSON.stringify(value)}`];
  },

  node(kind) {
    const found = app.graph._nodes.filter(({ type }) => type === kind);
    if (found.length !== 1) throw Error(`${found.length} nodes of the kind ${kind}`);
    return found[0];
  },

  /** Where the title of a node is on the screen, with the node in the middle. */
  titleOf(kind) {
    const node = this.node(kind);
    app.canvas.centerOnNode(node);
    const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + 60, node.pos[1] - 12]);
    const { left, top } = app.canvas.canvas.getBoundingClientRect();
    return [left + x, top + y];
  },

  widget(kind, name) {
    return this.node(kind).widgets.find((widget) => widget.name === name);
  },

  set(kind, name, value) {
    const widget = this.widget(kind, name);
    widget.value = value;
    widget.callback?.(value);
  },

  /** Every node with the values of its widgets, by id. */
  drawn() {
    return Object.fromEntries(
      app.graph._nodes.map((node) => [node.id, [node.type, (node.widgets ?? []).map(({ value }) => value ?? null)]]),
    );
  },

  videos() {
    return [...document.querySelectorAll("video")].map((video) => ({
      width: video.videoWidth,
      height: video.videoHeight,
      duration: video.duration,
      ready: video.readyState,
      played: video.currentTime,
      error: video.error?.message ?? null,
    }));
  },
};
