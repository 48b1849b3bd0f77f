// The view of lib.annotate: draws the state that Python keeps and passes keys and clicks on. It decides nothing about
// labels. Image coordinates are pixels whose centres are the integers.

const REACH = 10; // CSS pixels around a point that still hit it
const SLOW = 1500; // milliseconds without an answer until we say that the kernel is busy
const FONT = "600 12.5px system-ui, sans-serif";
const ROW = 26; // CSS pixels of a line in the list of images

const KEYS = [
  [["Arrows", "Shift+Arrows"], "move the crosshair, or the current keypoint once it is placed; Shift: ten times as far"],
  [["Enter", "Space"], "place the current keypoint at the crosshair; with Shift as hidden"],
  [["N", "B"], "next keypoint, back to the one before"],
  [["V"], "visible, hidden, not labelled"],
  [["Delete"], "delete the keypoint; with Shift the person"],
  [["A"], "add a person"],
  [["P", "Shift+P"], "next person, person before"],
  [["Y", "Shift+Y"], "accept the suggested person, all suggested people"],
  [[".", ",", "G"], "next image, image before, next image without labels"],
  [["D"], "mark the image as done"],
  [["Z", "R"], "undo, redo (also Ctrl+Z, Ctrl+Y)"],
  [["+", "-", "0", "F"], "zoom in, zoom out, whole image, current person"],
  [["H", "J", "K", "L"], "pan left, down, up, right"],
  [["T"], "names of all keypoints"],
  [["M"], "full screen"],
  [["Esc"], "leave the annotator"],
];
const MOUSE = [
  [["Click", "Shift+click"], "place the current keypoint, as hidden"],
  [["Drag"], "move a point; beside the points: pan"],
  [["Right click"], "on a point: visible, hidden, not labelled"],
  [["Wheel"], "zoom (once the annotator has the focus)"],
];

const ACTIONS = {
  n: ["next_keypoint"], b: ["previous_keypoint"], v: ["toggle_visibility"], a: ["add_person"],
  p: ["next_person"], P: ["previous_person"], y: ["accept"], Y: ["accept", true],
  ".": ["next_image"], ",": ["previous_image"], PageDown: ["next_image"], PageUp: ["previous_image"],
  g: ["next_open_image"], d: ["mark_done"], z: ["undo"], u: ["undo"], r: ["redo"],
  Delete: ["delete_keypoint"], Backspace: ["delete_keypoint"],
};
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const PANS = { h: [1, 0], l: [-1, 0], k: [0, 1], j: [0, -1] };

function h(tag, properties = {}, ...children) {
  const svg = ["svg", "line", "circle", "title"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

const rgb = ([r, g, b], alpha = 1) => `rgba(${r}, ${g}, ${b}, ${alpha})`;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const words = (name) => name.replaceAll("_", " ");

function render({ model, el }) {
  const figure = model.get("figure");
  const count = figure.keypoints.length;
  const id = Math.random().toString(36).slice(2);
  let state = null, bitmap = null, numberSent = 0, waiting = false, slow = null, queue = [];
  let view = { scale: 1, x: 0, y: 0, fitted: true }; // screen = (image + 0.5) * scale + offset
  let cross = { x: 0, y: 0 }, pointer = null, drag = null, allNames = false, frame = 0;

  // ---- the page -----------------------------------------------------------------------------------------------------

  const canvas = h("canvas", { tabindex: 0, role: "application", "aria-label":
    `Annotate ${figure.name}: ${count} keypoints. Arrow keys move, Enter places, question mark lists all keys.` });
  const live = h("div", { class: "live", role: "status", "aria-live": "polite" });
  const where = h("div", { class: "where" });
  const list = h("div", { class: "list" }, h("div", { class: "rows" }));
  const progress = h("div", { class: "total" }, h("div", { class: "bar" }, h("i")), h("span"));
  const help = h("div", { class: "help", hidden: "" }, ...sheet("Keyboard", KEYS), ...sheet("Mouse", MOUSE));
  const now = h("div", { class: "now" });
  const people = h("div", { class: "people", role: "group", "aria-label": "People" });
  const buttons = {};
  const tools = h("div", { class: "tools", role: "toolbar", "aria-label": "Annotator" },
    group(button("previous", "‹", "Image before (,)", "previous_image"), button("next", "›", "Next image (.)", "next_image")),
    group(button("undo", "↶", "Undo (Z)", "undo"), button("redo", "↷", "Redo (R)", "redo")),
    group(tool("−", "Zoom out (-)", () => zoom(1 / 1.3)), tool("Fit", "Whole image (0)", fit),
      tool("+", "Zoom in (+)", () => zoom(1.3))),
    group(button("visible", "Hidden", "Visible, hidden, not labelled (V)", "toggle_visibility"),
      button("erase", "Delete", "Delete the keypoint (Delete)", "delete_keypoint")),
    group(button("accept", "Accept", "Accept the suggested person (Y)", "accept")),
    h("span", { class: "space" }),
    group(button("done", "Done", "Mark the image as done (D)", "mark_done"),
      tool("Full", "Full screen (M)", fullscreen), tool("?", "All keys (?)", toggleHelp)));
  const drawing = h("svg", { class: "drawing", viewBox: "-12 -12 224 224", role: "img",
    "aria-label": "Skeleton: a click chooses a keypoint" });
  const links = figure.limbs.map(([a, b], k) => drawing.appendChild(h("line", { x1: at(a, 0), y1: at(a, 1), x2: at(b, 0),
    y2: at(b, 1), stroke: rgb(figure.limb_colours[k]) })));
  const dots = figure.keypoints.map((name, k) => drawing.appendChild(h("circle", { cx: at(k, 0), cy: at(k, 1), r: 6,
    stroke: rgb(figure.keypoint_colours[k]), fill: rgb(figure.keypoint_colours[k]),
    onclick: () => later(() => act("select", state.person, k)) }, h("title", {}, words(name)))));
  const stage = h("div", { class: "stage" }, canvas, help);
  const root = h("div", { class: "pose-annotator", "data-lm-suppress-shortcuts": "true" }, tools,
    h("div", { class: "images" }, progress, list), stage, h("div", { class: "side" }, now, drawing, people),
    h("div", { class: "foot" }, live, where),
    h("div", { class: "keys" }, ...keyline()));
  root.style.setProperty("--height", `${model.get("height")}px`);
  el.append(root);

  function at(k, axis) { return (200 * figure.layout[k][axis]).toFixed(1); }
  function group(...nodes) { return h("span", { class: "group" }, ...nodes); }
  function tool(label, title, onclick) {
    return h("button", { type: "button", title, "aria-label": title, onclick: () => { onclick(); canvas.focus(); } }, label);
  }
  function button(name, label, title, action) {
    return (buttons[name] = tool(label, title, () => later(() => act(action))));
  }
  function sheet(title, rows) {
    return [h("h4", {}, title), ...rows.map(([keys, text]) => h("p", {}, h("span", {}, ...keys.map((key) => h("kbd", {}, key))), text))];
  }
  function keyline() {
    const short = [["← ↑ ↓ →", "move"], ["Enter", "place"], ["N B", "keypoint"], ["V", "hidden"], ["A", "add"],
      ["P", "person"], [". ,", "image"], ["Z", "undo"], ["+ − 0", "zoom"], ["Esc", "leave"], ["?", "all keys"]];
    return short.map(([key, text]) => h("span", {}, h("kbd", {}, key), text));
  }

  // ---- talking to Python --------------------------------------------------------------------------------------------

  // Later keys wait for the answer, because what they mean depends on it; a move's result is known here already.
  function act(action, ...args) {
    numberSent += 1;
    waiting = waiting || (action !== "move" && action !== "look");
    clearTimeout(slow);
    try {
      model.send({ do: action, with: args, from: [id, numberSent], seen: state.revision });
    } catch { // the connection is gone, and with it the rest of what was typed
      [waiting, queue] = [false, []];
      return say("The kernel has ended or was restarted: run the cell again. What was saved is in the file", true);
    }
    slow = setTimeout(() => { root.classList.add("busy"); say("Waiting for the kernel, which is busy or has ended"); }, SLOW);
  }
  function later(task) {
    if (waiting) queue.push(task);
    else task();
  }
  function receive() {
    const next = model.get("state");
    const [who, number] = next.from.length ? next.from : [null, 0];
    if (who === id && number < numberSent) return; // a newer answer is on its way
    const first = state === null, moved = first || next.index !== state.index;
    const another = !first && next.person !== state.person, elsewhere = moved || another || next.keypoint !== state.keypoint;
    state = structuredClone(next);
    if (moved) { view.fitted = true; cross = { x: state.size[0] >> 1, y: state.size[1] >> 1 }; fit(); }
    cross = spot(another || moved) ?? cross;
    if (elsewhere && !moved) keepInSight();
    clearTimeout(slow);
    root.classList.remove("busy");
    say(state.message, state.error);
    showControls();
    draw();
    waiting = false;
    while (queue.length && !waiting) queue.shift()();
  }
  function say(text, error = false) {
    live.textContent = text;
    live.classList.toggle("error", error);
  }

  // ---- geometry -----------------------------------------------------------------------------------------------------

  const toScreen = (x, y) => [(x + 0.5) * view.scale + view.x, (y + 0.5) * view.scale + view.y];
  const toImage = (x, y) => [(x - view.x) / view.scale - 0.5, (y - view.y) / view.scale - 0.5];
  const points = (p) => Array.from({ length: count }, (_, k) => {
    const [x, y, v] = p.points.slice(3 * k, 3 * k + 3);
    return { x, y, v, k };
  });
  function current() { return state.person === null ? null : points(state.people[state.person])[state.keypoint]; }
  function spot(another) { // where the crosshair belongs: at the keypoint's place, or near another person
    const point = current();
    if (!point) return null;
    if (point.v || point.x || point.y) return { x: point.x, y: point.y };
    if (!another) return null;
    const own = points(state.people[state.person]), linked = figure.limbs.filter((limb) => limb.includes(point.k)).flat();
    const near = own.find((p) => p.v && linked.includes(p.k)) ?? own.find((p) => p.v);
    return near ? { x: near.x, y: near.y } : null;
  }
  function fit() {
    if (!state || !state.size[0]) return draw();
    const { clientWidth: width, clientHeight: height } = canvas, [w, h] = state.size, margin = 16;
    const scale = Math.max(Math.min((width - margin) / w, (height - margin) / h), 0.01);
    view = { scale, x: (width - w * scale) / 2, y: (height - h * scale) / 2, fitted: true };
    draw();
  }
  function zoom(factor, center = toScreen(cross.x, cross.y)) {
    const scale = clamp(view.scale * factor, 0.02, 60), [x, y] = center, ratio = scale / view.scale;
    view = { scale, x: x - (x - view.x) * ratio, y: y - (y - view.y) * ratio, fitted: false };
    draw();
  }
  function pan(dx, dy) { view = { ...view, x: view.x + dx, y: view.y + dy, fitted: false }; draw(); }
  function keepInSight() {
    const [x, y] = toScreen(cross.x, cross.y), edge = 30, { clientWidth: w, clientHeight: h } = canvas;
    const dx = clamp(x, edge, w - edge) - x, dy = clamp(y, edge, h - edge) - y;
    if (!view.fitted && (dx || dy)) pan(dx, dy);
  }
  function showPerson() {
    const found = state.person === null ? [] : points(state.people[state.person]).filter((p) => p.v);
    if (!found.length) return fit();
    const xs = found.map((p) => p.x), ys = found.map((p) => p.y), { clientWidth: width, clientHeight: height } = canvas;
    const [w, h] = [Math.max(...xs) - Math.min(...xs) + 20, Math.max(...ys) - Math.min(...ys) + 20];
    const scale = Math.min(0.7 * Math.min(width / w, height / h), 20);
    const [x, y] = [(Math.max(...xs) + Math.min(...xs)) / 2, (Math.max(...ys) + Math.min(...ys)) / 2];
    view = { scale, x: width / 2 - (x + 0.5) * scale, y: height / 2 - (y + 0.5) * scale, fitted: false };
    draw();
  }
  function hit(x, y) {
    let best = null, nearest = REACH;
    state.people.forEach((figure, person) => points(figure).forEach((p) => {
      if (!p.v) return;
      const [sx, sy] = toScreen(p.x, p.y), distance = Math.hypot(sx - x, sy - y) - (person === state.person ? 4 : 0);
      if (distance < nearest) [best, nearest] = [{ person, keypoint: p.k, x: p.x, y: p.y }, distance];
    }));
    return best;
  }

  // ---- keyboard -----------------------------------------------------------------------------------------------------

  function onKey(event) {
    event.stopPropagation();
    const own = event.target === canvas, { shiftKey: shift, code } = event;
    // on keyboards of other alphabets the letters' places count
    const key = /^[^\x00-\x7f]$/.test(event.key) && code.startsWith("Key") ? code[3].toLowerCase() : event.key;
    if (event.ctrlKey || event.metaKey) {
      const action = { z: shift ? "redo" : "undo", y: "redo", s: "save" }[key.toLowerCase()];
      if (!action) return;
      event.preventDefault();
      return later(() => act(action));
    }
    if (event.altKey || key === "Tab" || (!own && (key === "Enter" || key === " "))) return;
    if (key === "Escape") return help.hidden ? leave() : toggleHelp();
    const task = meaning(key, shift);
    if (!task) return;
    event.preventDefault();
    const once = ["Enter", " ", "Delete", "Backspace", "a", "y", "d", "v"].includes(key); // a held key is no second wish
    if (state && !(event.repeat && once)) later(task);
  }
  function meaning(key, shift) {
    const letter = /^[a-z]$/i.test(key) ? (shift ? key.toUpperCase() : key.toLowerCase()) : key;
    if (ARROWS[key]) return () => arrow(ARROWS[key], shift ? 10 : 1);
    if (PANS[letter]) return () => pan(...PANS[letter].map((d) => 60 * d));
    if (key === "Enter" || key === " ") return () => act("place", cross.x, cross.y, shift ? 1 : 2);
    if (shift && (key === "Delete" || key === "Backspace")) return () => act("delete_person");
    if (ACTIONS[letter]) return () => act(...ACTIONS[letter]);
    return { "+": () => zoom(1.3), "=": () => zoom(1.3), "-": () => zoom(1 / 1.3), "0": fit, f: showPerson, m: fullscreen,
      t: () => { allNames = !allNames; draw(); }, "?": toggleHelp }[letter];
  }
  let lastArrow = "";
  function arrow([dx, dy], times) {
    const step = times * Math.max(1, Math.round(1 / view.scale)); // one image pixel, or one on the screen where that is more
    const x = clamp(cross.x + dx * step, 0, state.size[0] - 1), y = clamp(cross.y + dy * step, 0, state.size[1] - 1);
    const point = current();
    if (point && point.v) {
      // pressing arrows on one point is one move, until something else happens
      const again = lastArrow === `${state.index} ${state.person} ${state.keypoint}`;
      lastArrow = `${state.index} ${state.person} ${state.keypoint}`;
      state.people[state.person].points.splice(3 * state.keypoint, 2, x, y);
      act("move", x - point.x, y - point.y, again);
    }
    cross = { x, y };
    pointer = null;
    keepInSight();
    draw();
  }
  function leave() {
    const cell = root.closest(".jp-Notebook, .jp-Cell");
    canvas.blur();
    if (cell) cell.focus();
  }
  function toggleHelp() { help.hidden = !help.hidden; }
  function fullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else root.requestFullscreen?.();
  }

  // ---- mouse --------------------------------------------------------------------------------------------------------

  const local = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  function onDown(event) {
    event.preventDefault(); // notebooks would take the focus
    event.stopPropagation();
    canvas.focus({ preventScroll: true });
    if (!state || event.button === 2) return;
    canvas.setPointerCapture(event.pointerId);
    const [x, y] = local(event), point = event.button === 0 ? hit(x, y) : null;
    drag = { x, y, lastX: x, lastY: y, point, button: event.button, far: false, revision: state.revision };
    if (point && (point.person !== state.person || point.keypoint !== state.keypoint)) {
      later(() => act("select", point.person, point.keypoint));
    }
  }
  function onMove(event) {
    const [x, y] = local(event);
    pointer = { x, y };
    if (drag) {
      drag.far = drag.far || Math.hypot(x - drag.x, y - drag.y) > 3;
      if (drag.far && drag.point) {
        const [ix, iy] = toImage(...toScreen(drag.point.x, drag.point.y).map((s, i) => s + [x - drag.x, y - drag.y][i]));
        drag.to = { x: clamp(ix, 0, state.size[0] - 1), y: clamp(iy, 0, state.size[1] - 1) };
      } else if (drag.far) pan(x - drag.lastX, y - drag.lastY);
      [drag.lastX, drag.lastY] = [x, y];
    } else if (state && !current()?.v) {
      const [ix, iy] = toImage(x, y);
      cross = { x: clamp(ix, 0, state.size[0] - 1), y: clamp(iy, 0, state.size[1] - 1) };
    }
    draw();
  }
  function onUp(event) {
    if (!drag) return;
    const { point, to, far, button, x, y, revision } = drag;
    drag = null;
    lastArrow = "";
    if (revision !== state.revision) return draw(); // it began on what is no longer there
    if (point && to) {
      state.people[point.person].points.splice(3 * point.keypoint, 2, to.x, to.y);
      later(() => act("move", to.x - point.x, to.y - point.y));
    } else if (!point && !far && button === 0) {
      const [ix, iy] = toImage(x, y), reach = REACH / view.scale + 0.5, [w, h] = state.size;
      if (ix < -reach || iy < -reach || ix > w - 1 + reach || iy > h - 1 + reach) say("That is outside the image");
      else later(() => act("click", ix, iy, event.shiftKey ? 1 : 2));
    }
    draw();
  }
  function onMenu(event) {
    event.preventDefault();
    event.stopPropagation();
    const point = state && hit(...local(event));
    if (!point) return;
    later(() => act("select", point.person, point.keypoint));
    later(() => act("toggle_visibility"));
  }
  function onWheel(event) {
    if (!root.contains(document.activeElement) && !event.ctrlKey) return; // the page scrolls
    event.preventDefault();
    zoom(Math.exp(-clamp(event.deltaY, -60, 60) / 200), local(event));
  }

  // ---- drawing ------------------------------------------------------------------------------------------------------

  function draw() {
    if (!frame) frame = requestAnimationFrame(() => { frame = 0; paint(); });
  }
  function paint() {
    const ratio = window.devicePixelRatio || 1, { clientWidth: width, clientHeight: height } = canvas;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    }
    const c = canvas.getContext("2d");
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, width, height);
    if (!state) return;
    if (bitmap) {
      c.imageSmoothingEnabled = view.scale < 3;
      c.imageSmoothingQuality = "high";
      c.drawImage(bitmap, view.x, view.y, state.size[0] * view.scale, state.size[1] * view.scale);
    } else if (state.error) label(c, width / 2, height / 2, "This image cannot be shown", "center");
    state.people.forEach((person, i) => { if (i !== state.person) paintPerson(c, person, i, 0.5); });
    if (state.person !== null) paintPerson(c, state.people[state.person], state.person, 1);
    if (bitmap) paintCursor(c, width, height);
    showWhere();
  }
  function paintPerson(c, person, i, alpha) {
    const all = points(person);
    if (drag?.to && drag.point.person === i) Object.assign(all[drag.point.keypoint], drag.to);
    const own = i === state.person, line = own ? 3 : 2;
    c.globalAlpha = alpha;
    c.lineCap = "round";
    for (const [style, extra] of [["rgba(0, 0, 0, 0.55)", 2.5], [null, 0]]) {
      figure.limbs.forEach(([a, b], k) => {
        if (!all[a].v || !all[b].v) return;
        c.strokeStyle = style ?? rgb(figure.limb_colours[k]);
        c.lineWidth = (all[a].v === 2 && all[b].v === 2 ? line : line / 2) + extra;
        c.setLineDash(person.suggested ? [6, 6] : []);
        c.beginPath();
        c.moveTo(...toScreen(all[a].x, all[a].y));
        c.lineTo(...toScreen(all[b].x, all[b].y));
        c.stroke();
      });
    }
    if (own && person.box && !all.some((p) => p.v)) { // a person of whom only the box is known
      const [x, y, w, h] = person.box;
      c.strokeStyle = "#fff";
      c.setLineDash([7, 5]);
      c.strokeRect(...toScreen(x - 0.5, y - 0.5), w * view.scale, h * view.scale);
    }
    c.setLineDash([]);
    for (const p of all) {
      if (p.v || (own && (p.x || p.y))) paintPoint(c, p, own ? 6 : 4.5, person.suggested);
    }
    c.globalAlpha = 1;
    const labelled = all.filter((p) => p.v).map((p) => toScreen(p.x, p.y));
    if (state.people.length > 1 && labelled.length) {
      const top = labelled.reduce((a, b) => (b[1] < a[1] ? b : a));
      label(c, top[0], top[1] - 22, `${i + 1}${person.suggested ? "?" : ""}`, "center", null, own ? "#fff" : "#bbb");
    }
    if (own && allNames) for (const p of all) if (p.v && p.k !== state.keypoint) name(c, p);
  }
  function paintPoint(c, p, radius, suggested) {
    const [x, y] = toScreen(p.x, p.y), colour = rgb(figure.keypoint_colours[p.k]);
    c.beginPath();
    if (!p.v) { // a place without a label: a faint cross
      c.moveTo(x - 4, y - 4); c.lineTo(x + 4, y + 4); c.moveTo(x - 4, y + 4); c.lineTo(x + 4, y - 4);
    } else if (suggested) c.rect(x - radius + 1, y - radius + 1, 2 * radius - 2, 2 * radius - 2);
    else c.arc(x, y, p.v === 1 ? radius - 1 : radius, 0, 7);
    c.fillStyle = colour;
    if (p.v === 2) c.fill();
    c.lineWidth = p.v === 1 ? 5 : 1.5;
    c.strokeStyle = p.v === 0 ? colour : "#111";
    c.stroke();
    if (p.v !== 1) return;
    c.lineWidth = 2.5;
    c.strokeStyle = colour;
    c.stroke();
  }
  function paintCursor(c, width, height) {
    const point = current(), over = pointer && !drag && hit(pointer.x, pointer.y);
    const place = drag?.to ?? (point?.v ? point : cross), [x, y] = toScreen(place.x, place.y);
    const focused = document.activeElement === canvas;
    c.strokeStyle = "#fff";
    if (point?.v) { // a halo with a gap shows what is below
      c.lineWidth = 2;
      c.setLineDash([5, 4]);
      c.beginPath();
      c.arc(x, y, 13, 0, 7);
      c.stroke();
      c.setLineDash([]);
    } else if (focused || pointer) {
      for (const [style, line] of [["rgba(0, 0, 0, 0.5)", 3], ["rgba(255, 255, 255, 0.85)", 1]]) {
        c.strokeStyle = style;
        c.lineWidth = line;
        c.beginPath();
        for (const [ax, ay, bx, by] of [[0, y, x - 8, y], [x + 8, y, width, y], [x, 0, x, y - 8], [x, y + 8, x, height]]) {
          c.moveTo(ax, ay);
          c.lineTo(bx, by);
        }
        c.stroke();
      }
      c.fillStyle = "#fff";
      c.fillRect(x - 1, y - 1, 2, 2);
    }
    if (point?.v || focused || pointer) name(c, { k: state.keypoint, ...place }, 16);
    if (over && (over.keypoint !== state.keypoint || over.person !== state.person)) name(c, { ...over, k: over.keypoint }, 10, true);
  }
  function name(c, p, away = 10, below = false) { // below: what is under the mouse does not hide what comes next
    const [x, y] = toScreen(p.x, p.y), text = words(figure.keypoints[p.k]), colour = rgb(figure.keypoint_colours[p.k]);
    c.font = FONT;
    const right = x + away + 27 + c.measureText(text).width < canvas.clientWidth;
    label(c, x + (right ? away : -away), y + (below || y <= 26 ? 18 : -14), text, right ? "left" : "right", colour);
  }
  function label(c, x, y, text, align, swatch = null, colour = "#fff") {
    c.font = FONT;
    c.textAlign = "left";
    c.textBaseline = "middle";
    const indent = swatch ? 20 : 7, width = c.measureText(text).width + indent + 7;
    const wanted = align === "left" ? x : align === "right" ? x - width : x - width / 2;
    const left = Math.max(2, Math.min(wanted, canvas.clientWidth - width - 2));
    c.fillStyle = "rgba(15, 17, 21, 0.85)";
    c.beginPath();
    c.roundRect(left, y - 10, width, 20, 5);
    c.fill();
    c.fillStyle = colour;
    c.fillText(text, left + indent, y + 0.5);
    if (!swatch) return;
    c.fillStyle = swatch; // dark colours would be hard to read as text
    c.beginPath();
    c.arc(left + 11, y, 5, 0, 7);
    c.fill();
  }

  // ---- beside the picture -------------------------------------------------------------------------------------------

  function showControls() {
    const point = current(), person = state.person === null ? null : state.people[state.person];
    buttons.undo.disabled = !state.undo;
    buttons.redo.disabled = !state.redo;
    buttons.previous.disabled = state.index === 0;
    buttons.next.disabled = state.index === model.get("names").length - 1;
    buttons.visible.disabled = buttons.erase.disabled = !(point && (point.v || point.x || point.y));
    buttons.visible.textContent = ["Visible", "Unlabel", "Hidden"][buttons.erase.disabled ? 2 : point.v];
    buttons.accept.parentNode.hidden = !person?.suggested;
    buttons.done.setAttribute("aria-pressed", Boolean(model.get("progress")[state.index]?.[2]));
    const own = person ? points(person) : [];
    dots.forEach((dot, k) => {
      const v = own[k]?.v ?? 0;
      dot.setAttribute("class", `${["missing", "hidden", "visible"][v]}${k === state.keypoint ? " current" : ""}`);
      if (k === state.keypoint) drawing.append(dot); // on top of its neighbours
    });
    links.forEach((line, k) => line.setAttribute("class", figure.limbs[k].every((end) => own[end]?.v) ? "" : "missing"));
    const swatch = h("i", { style: `background: ${rgb(figure.keypoint_colours[state.keypoint])}` });
    now.replaceChildren(h("b", {}, swatch, words(figure.keypoints[state.keypoint])), h("span", {}, `${state.keypoint + 1} of ${count} · ` +
      ["not labelled", "hidden", "visible"][point?.v ?? 0]));
    people.replaceChildren(...state.people.map((other, i) => {
      const labelled = points(other).filter((p) => p.v).length, title = `Person ${i + 1}: ${labelled} of ${count}`;
      const chip = tool(`${i + 1}${other.suggested ? "?" : ""}`, title, () => later(() => act("select", i, state.keypoint)));
      chip.style.setProperty("--part", `${(100 * labelled) / count}%`);
      chip.setAttribute("aria-pressed", i === state.person);
      return chip;
    }), tool("+", "Add a person (A)", () => later(() => act("add_person"))));
    root.classList.toggle("unsaved", !state.saved);
    showList();
    showWhere();
  }
  function showWhere() {
    if (!state) return;
    const saved = state.saved ? "saved" : "NOT SAVED";
    where.textContent = `x ${cross.x.toFixed(0)}  y ${cross.y.toFixed(0)} · ${Math.round(100 * view.scale)} % · ${saved}`;
    where.title = state.file;
  }
  function showList() { // only the rows in sight: there may be a hundred thousand
    const names = model.get("names"), marks = model.get("progress"), rows = list.firstChild;
    rows.style.height = `${ROW * names.length}px`;
    if (list.dataset.index !== `${state.index}`) {
      list.dataset.index = state.index;
      const y = ROW * state.index;
      if (y < list.scrollTop || y + ROW > list.scrollTop + list.clientHeight) list.scrollTop = y - list.clientHeight / 2;
    }
    const first = Math.floor(list.scrollTop / ROW), last = Math.min(first + Math.ceil(list.clientHeight / ROW) + 1, names.length);
    rows.replaceChildren(...Array.from({ length: Math.max(0, last - first) }, (_, i) => {
      const index = first + i, [labelled, suggested, done] = marks[index];
      const mark = done ? "✓" : labelled ? "●" : suggested ? "?" : "○";
      const text = `${labelled || ""}${suggested ? ` +${suggested}?` : ""}`;
      return h("div", { class: `row ${done || labelled ? "has" : ""}`, title: names[index], style: `top: ${ROW * index}px`,
        "aria-current": index === state.index, onclick: () => { later(() => act("go_to", index)); canvas.focus(); } },
      h("i", {}, mark), h("span", {}, names[index]), h("em", {}, text));
    }));
    const finished = marks.filter(([labelled, , done]) => done || labelled).length;
    progress.querySelector("i").style.width = `${(100 * finished) / names.length}%`;
    progress.lastChild.textContent = `Image ${state.index + 1} of ${names.length} · ${finished} labelled`;
  }

  // ---- life ---------------------------------------------------------------------------------------------------------

  let pictures = 0;
  async function showPicture() {
    const bytes = model.get("picture"), mine = ++pictures;
    bitmap = null;
    if (bytes?.byteLength) {
      try {
        const decoded = await createImageBitmap(new Blob([bytes]));
        if (mine !== pictures) return decoded.close();
        bitmap = decoded;
      } catch (error) {
        if (mine === pictures) say(`This browser cannot show the image: ${error.message}`, true);
      }
    }
    root.dataset.picture = bitmap ? `${bitmap.width}x${bitmap.height}` : "";
    draw();
  }
  const look = () => { if (state) later(() => act("look")); }; // other cells may have used the session
  const onFocus = (event) => { if (!root.contains(event.relatedTarget)) look(); draw(); };
  function showWidth() {
    root.classList.toggle("narrow", root.clientWidth < 660);
    root.classList.toggle("slim", root.clientWidth < 480);
  }
  const resized = new ResizeObserver(() => { showWidth(); if (view.fitted) fit(); draw(); if (state) showList(); });
  const listeners = [["change:state", receive], ["change:picture", showPicture],
    ["change:progress", () => state && showControls()]];
  listeners.forEach(([name, call]) => model.on(name, call));
  root.addEventListener("keydown", onKey);
  for (const type of ["keyup", "keypress"]) root.addEventListener(type, (event) => event.stopPropagation());
  root.addEventListener("focusin", onFocus);
  root.addEventListener("pointerenter", look); // before the first click
  root.addEventListener("focusout", draw);
  list.addEventListener("scroll", () => state && showList());
  canvas.addEventListener("pointerdown", onDown);
  canvas.addEventListener("pointermove", onMove);
  canvas.addEventListener("pointerup", onUp);
  canvas.addEventListener("pointercancel", () => { drag = null; draw(); });
  canvas.addEventListener("pointerleave", () => { pointer = null; draw(); });
  canvas.addEventListener("contextmenu", onMenu);
  canvas.addEventListener("wheel", onWheel, { passive: false });
  canvas.addEventListener("mousedown", (event) => event.stopPropagation());
  resized.observe(canvas);
  showPicture();
  receive();
  return () => {
    listeners.forEach(([name, call]) => model.off(name, call));
    resized.disconnect();
    clearTimeout(slow);
    cancelAnimationFrame(frame);
  };
}

export default { render };
