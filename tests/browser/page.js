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
    await this.twoFrames();
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

  /** [node, widget] of every control of App mode that is not in the graph. */
  lostControls() {
    const { inputs = [], outputs = [] } = app.graph.extra.linearData ?? {};
    const widgets = (id) => app.graph.getNodeById(id)?.widgets ?? [];
    const lost = inputs.filter(([id, name]) => !widgets(id).some((widget) => widget.name === name));
    return [...lost, ...outputs.filter((id) => !app.graph.getNodeById(id))];
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

  /** One more node, which the graph passes over, with values of its widgets. */
  addBypassed(kind, values) {
    const node = LiteGraph.createNode(kind);
    node.pos = [0, -600];
    node.mode = 4;
    app.graph.add(node);
    for (const [name, value] of Object.entries(values)) this.set(kind, name, value);
  },

  /** Where the button of a node is on the screen, with the node in the middle. */
  async buttonOf(kind) {
    const node = this.node(kind);
    const button = node.widgets.find(({ type }) => type === "button");
    await this.center(node);
    return this.onScreen(node.pos[0] + node.size[0] / 2, node.pos[1] + button.last_y + 10);
  },

  /** Where the title of a node is on the screen, with the node in the middle. */
  async titleOf(kind) {
    const node = this.node(kind);
    await this.center(node);
    return this.onScreen(node.pos[0] + 60, node.pos[1] - 12);
  },

  async center(node) {
    app.canvas.centerOnNode(node);
    app.canvas.draw(true, true);
    await this.twoFrames();
  },

  twoFrames() {
    return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  },

  onScreen(...place) {
    const [x, y] = app.canvas.ds.convertOffsetToCanvas(place);
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

  largestVideo() {
    const area = (video) => video.clientWidth * video.clientHeight;
    return [...document.querySelectorAll("video")].sort((one, other) => area(other) - area(one))[0];
  },

  /** Play it until it moves, and say what the browser says of it. */
  async play() {
    const video = this.largestVideo();
    const moves = new Promise((done) => video.addEventListener("timeupdate", () => video.currentTime > 0 && done()));
    await video.play();
    await moves;
    const { videoWidth: width, videoHeight: height, duration, readyState: ready } = video;
    return { width, height, duration, ready, error: video.error?.message ?? null };
  },
};
