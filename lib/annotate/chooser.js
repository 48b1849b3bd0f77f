// The view of FrameChooser: draws its state and sends clicks and keys; all rules are in chooser.py.

const make = (tag, properties = {}, ...children) => {
  const { data = {}, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  for (const [name, value] of Object.entries(data)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

const link = (bytes) => URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));

function render({ model, el }) {
  const send = (action, ...values) => model.send({ do: action, with: values });
  const state = () => model.get("_state");
  const links = [];
  const tiles = new Map();
  let anchor = null; // where a range that is chosen with shift begins
  let focus = state().focus;

  const button = (text, title, action) => make("button", { type: "button", textContent: text, title, onclick: action });
  const number = make("input", { type: "number", min: 1, value: 10, data: { "aria-label": "n" } });
  const n = () => Math.max(1, Math.round(number.value) || 1);
  const order = make("select", { onchange: () => send("order_by", order.value) },
    make("option", { value: "time", textContent: "by time" }),
    make("option", { value: "sharpness", textContent: "sharpest first" }));
  order.setAttribute("aria-label", "order");
  const blur = make("input", { type: "range", min: 0, max: 0.95, step: 0.05, data: { "aria-label": "hide the blurriest" },
    onchange: () => send("hide_blurry", Number(blur.value)) });
  const undo = button("undo", "back to the choice before (Ctrl+Z)", () => send("undo"));
  const save = button("save", "", () => send("save"));
  const bar = make("div", { className: "chooser-bar", data: { role: "toolbar", "aria-label": "choosing" } },
    order, make("label", {}, "hide blurry ", blur), make("label", {}, "n = ", number),
    button("every n-th", "choose every n-th frame shown", () => send("every", n())),
    button("sharpest of n", "choose the sharpest of every n frames shown", () => send("sharpest", n())),
    button("none", "choose none", () => send("clear")), undo, save);
  const preview = make("img", { className: "chooser-preview" });
  const list = make("div", { className: "chooser-list",
    data: { role: "listbox", "aria-multiselectable": "true", "aria-label": "frames" } });
  const status = make("div", { className: "chooser-status", data: { role: "status", "aria-live": "polite" } });
  // JupyterLab would take the arrow keys and single letters for its own
  el.setAttribute("data-lm-suppress-shortcuts", "true");
  el.classList.add("chooser");
  el.append(bar, status, preview, list);

  model.get("_thumbnails").forEach((bytes, i) => {
    const { index, time, sharpness } = model.get("_frames")[i];
    links.push(link(bytes));
    const tile = make("div", { className: "chooser-tile", data: { role: "option", "data-frame": index } },
      make("img", { src: links[i], alt: "", draggable: false }),
      make("span", { textContent: `${index} · ${time.toFixed(2)} s` }),
      make("span", { className: "chooser-sharp", textContent: sharpness.toFixed(0), title: "sharpness" }));
    tile.setAttribute("aria-label", `frame ${index}, ${time.toFixed(2)} seconds, sharpness ${sharpness.toFixed(0)}`);
    tile.onclick = (event) => { lookAt(index); pick(index, event.shiftKey); };
    tiles.set(index, tile);
  });

  function pick(index, range) {
    const shown = state().shown;
    const ends = [shown.indexOf(anchor), shown.indexOf(index)].sort((a, b) => a - b);
    if (range && ends[0] >= 0) send("choose", shown.slice(ends[0], ends[1] + 1));
    else send("toggle", index);
    anchor = index;
  }

  function lookAt(index) {
    focus = index;
    for (const [other, tile] of tiles) tile.tabIndex = other === index ? 0 : -1;
    tiles.get(index).focus();
    send("look", index);
  }

  list.addEventListener("keydown", (event) => {
    const shown = state().shown;
    const at = shown.indexOf(focus);
    const top = tiles.get(shown[0])?.offsetTop;
    const columns = shown.filter((index) => tiles.get(index).offsetTop === top).length;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -at,
      End: shown.length - 1 - at };
    if (event.key in steps) {
      const to = shown[at + steps[event.key]];
      if (to !== undefined) lookAt(to);
    } else if (event.key === " " || event.key === "Enter") pick(focus, event.shiftKey);
    else if (event.key === "z" && (event.ctrlKey || event.metaKey)) send("undo");
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  function draw() {
    const { shown, chosen, order: by, hidden, message, undo: can, save_to: folder } = state();
    if (!shown.includes(focus)) focus = shown[0];
    const wanted = shown.map((index) => tiles.get(index));
    if (wanted.length !== list.children.length || wanted.some((tile, i) => tile !== list.children[i])) {
      const active = list.contains(document.activeElement);
      list.replaceChildren(...wanted);
      if (active) tiles.get(focus).focus();
    }
    for (const [index, tile] of tiles) {
      tile.setAttribute("aria-selected", chosen.includes(index));
      tile.tabIndex = index === focus ? 0 : -1;
    }
    order.value = by;
    blur.value = hidden;
    undo.disabled = !can;
    save.disabled = folder === null || chosen.length === 0;
    save.title = folder === null ? "pass save_to=FOLDER to FrameChooser" : `write the chosen frames to ${folder}`;
    save.textContent = `save ${chosen.length}`;
    status.textContent = message;
  }

  function show() {
    URL.revokeObjectURL(preview.src);
    preview.src = link(model.get("_preview"));
    preview.alt = `frame ${state().focus}`;
  }

  model.on("change:_state", draw);
  model.on("change:_preview", show);
  draw();
  show();
  return () => {
    model.off("change:_state", draw);
    model.off("change:_preview", show);
    for (const url of [...links, preview.src]) URL.revokeObjectURL(url);
  };
}

export default { render };
