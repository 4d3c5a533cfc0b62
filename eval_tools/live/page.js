// The page's data: what the model is and looks at, names and colours by label, and what frames come.
const data = JSON.parse($("data").textContent);
const shown = new Set(data.names.keys());
const PARTS = ["color", "depth"].filter((part) => data[part]);
const WORDS = { color: "colour", depth: "depth" };
// files: those that are dropped. cross: the pixel that is marked; pixel: the one that is read.
// playing: whether frames are asked for as they come. at: the number of the one that is shown.
// came: when the last ones came. asked, run: count requests and runs, so that an answer that is late
// is dropped.
const state = {
  files: {}, frame: null, cross: null, pixel: null,
  playing: false, at: -1, came: [], asked: 0, run: 0,
};

const percent = (share) => (share >= 0.0995 || share === 0 ? Math.round(100 * share)
  : (100 * share).toFixed(1)) + " %";

// -- talking to the server ------------------------------------------------------------------------

// A message: the length of its JSON, the JSON, the blocks of bytes (eval_tools/live/message.py).
async function packMessage(facts, blocks) {
  const parts = Object.entries(blocks);
  const sizes = parts.map(([name, file]) => [name, file.size]);
  const head = new TextEncoder().encode(JSON.stringify({ ...facts, blocks: sizes }));
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, head.length, true);
  return new Blob([length, head, ...parts.map(([, file]) => file)]);
}

function unpackMessage(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const facts = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let place = 4 + length;
  for (const [name, size] of facts.blocks) {
    facts[name] = buffer.slice(place, place + size);
    place += size;
  }
  return facts;
}

// The frame that the server answers with. Throws an Error that says why there is none.
async function ask(path, facts, blocks = {}) {
  const asked = performance.now();
  const body = await packMessage(facts, blocks);
  if (body.size > data.most_bytes) {
    throw new Error(`The files have ${body.size} bytes; at most ${data.most_bytes} are taken.`);
  }
  let answer;
  try {
    answer = await fetch(path, { method: "POST", body, headers: { "X-FuseNet-Token": data.token } });
  } catch {
    throw new Error("The program does not answer: has it ended? Or a file has changed; choose it "
      + "again.");
  }
  if (!answer.ok) throw new Error((await answer.json()).error);
  return { asked, ...await frameOf(unpackMessage(await answer.arrayBuffer())) };
}

async function frameOf(facts) {
  const frame = {
    ...facts,
    labels: new Uint8Array(facts.labels),
    confidence: new Uint8Array(facts.confidence),
    depth: facts.depth ? new Uint16Array(facts.depth) : null,
  };
  if (facts.color) {
    const image = await createImageBitmap(new Blob([facts.color], { type: "image/jpeg" }));
    frame.color = layer(frame);
    frame.color.getContext("2d").drawImage(image, 0, 0);
    image.close();
  }
  return frame;
}

// Asks for a frame and shows it, unless something else was asked for meanwhile. Returns whether it
// was shown.
async function request(path, facts, blocks) {
  const number = ++state.asked;
  const slow = setTimeout(() => tell("Labelling …"), 300);
  try {
    const frame = await ask(path, facts, blocks);
    if (number !== state.asked) return false;
    clearTimeout(slow);
    complain("");
    show({ ...frame, number });
    return true;
  } catch (error) {
    clearTimeout(slow);
    if (number !== state.asked) return false;
    tell("");
    complain(error.message);
    document.body.dataset.frame = "failed";
    return false;
  }
}

function tell(text) {
  if ($("status").textContent !== text) $("status").textContent = text;
}

function complain(text) {
  $("error").hidden = !text;
  $("error").textContent = text;
}

// -- files ----------------------------------------------------------------------------------------

// Whether a file is "color" or "depth", by its name or its first bytes; null if they do not tell.
async function kindOf(file) {
  const name = file.name.toLowerCase();
  if (/\.(exr|npy|pgm)$/.test(name) || /(^|[^a-z])(depths?|abs)([^a-z]|$)/.test(name)) {
    return "depth";
  }
  if (/\.(jpe?g|webp|bmp|ppm)$/.test(name) || /(^|[^a-z])(rgb|colou?r)([^a-z]|$)/.test(name)) {
    return "color";
  }
  let head;
  try {
    head = new Uint8Array(await file.slice(0, 26).arrayBuffer());
  } catch (error) {  // it is a folder, say
    throw new Error(`${file.name}: cannot be read: ${error.message}`);
  }
  const isPng = head.length === 26 && head[1] === 0x50 && head[2] === 0x4e && head[3] === 0x47;
  if (!isPng) return null;
  const [bits, colors] = head.slice(24);
  if (colors) return "color";
  return bits === 16 ? "depth" : null;  // 8 bits of grey may be either
}

// Labels files that were dropped or chosen. part: what they are, if the user has said it.
async function take(files, part = null) {
  if (!files.length) return;
  pause();
  complain("");
  try {
    const found = await sorted(files, part);
    Object.assign(state.files, found);
    for (const [kind, file] of Object.entries(found)) showName(kind, file);
  } catch (error) {
    complain(error.message);
    return;
  }
  $("drop").open = true;
  labelFiles();
}

// What each file is, as {color, depth}. Throws an Error that says why that cannot be told.
async function sorted(files, part) {
  if (files.length > PARTS.length) {
    const wanted = PARTS.map((kind) => WORDS[kind]).join(" and ");
    throw new Error(`${files.length} files were dropped; expected ${wanted}.`);
  }
  const found = {};
  const left = [];
  for (const file of files) {
    const kind = PARTS.length === 1 ? PARTS[0] : part ?? await kindOf(file);
    if (data[kind] && !found[kind]) found[kind] = file; else left.push(file);
  }
  for (const file of left) {
    const free = PARTS.find((kind) => !found[kind] && !(files.length === 1 && state.files[kind]));
    if (!free) throw new Error(`${file.name}: is it colour or depth? Drop it on its field.`);
    found[free] = file;
  }
  return found;
}

// Lets the field for files say the name of a file that was dropped.
function showName(part, file) {
  const list = new DataTransfer();
  list.items.add(file);
  $(`${part}-file`).files = list.files;
}

function labelFiles() {
  const missing = PARTS.filter((part) => !state.files[part]);
  if (missing.length === PARTS.length) return;
  complain("");
  if (missing.length) {
    tell(`Now choose or drop the ${WORDS[missing[0]]} file.`);
    return;
  }
  state.example = false;
  const names = Object.fromEntries(PARTS.map((part) => [part, state.files[part].name]));
  const files = Object.fromEntries(PARTS.map((part) => [part, state.files[part]]));
  request("/label", { unit: unit(), ...names }, files);
}

const unit = () => ($("unit").value === "other" ? $("steps").value : $("unit").value);

function watchFiles() {
  for (const part of PARTS) {
    $(`${part}-file`).addEventListener("change", (event) => {
      if (event.target.files.length) take([...event.target.files], part);
    });
  }
  for (const part of ["color", "depth"]) $(`${part}-slot`).hidden = !data[part];
  $("unit-choice").hidden = !data.depth;
  $("unit").value = data.unit;
  if ($("unit").selectedIndex < 0) {
    $("unit").value = "other";
    $("steps").value = data.unit;
  }
  $("steps-choice").hidden = $("unit").value !== "other";
  $("unit").addEventListener("change", () => {
    $("steps-choice").hidden = $("unit").value !== "other";
    if (!state.example) labelFiles();
  });
  $("steps").addEventListener("change", () => { if (!state.example) labelFiles(); });
  $("example").hidden = !data.example;
  $("example").addEventListener("click", () => {
    pause();
    state.example = true;
    request("/label", { example: true });
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
    markSlot(event.target);
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) endDrag();
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    endDrag();
    const slot = event.target.closest?.(".slot");
    const files = [...event.dataTransfer.files];
    take(files, slot && files.length === 1 ? slot.id.replace("-slot", "") : null);
  });
}

function markSlot(target) {
  const over = target?.closest?.(".slot");
  for (const slot of document.querySelectorAll(".slot")) slot.classList.toggle("over", slot === over);
}

function endDrag() {
  document.body.classList.remove("dragging");
  markSlot(null);
}

// -- frames as they come --------------------------------------------------------------------------

const source = data.frames;
const isRecording = source?.kind === "recording";

function play() {
  if (state.playing || !source) return;
  state.playing = true;
  state.came = [];
  $("play").textContent = "Pause";
  follow(++state.run);
}

function pause() {
  state.playing = false;
  state.run++;
  $("play").textContent = "Play";
}

// Shows one frame after another until the user pauses, the recording ends or something fails. run:
// the number of this run; another one means that the user has paused meanwhile.
async function follow(run) {
  let due = performance.now();
  while (state.run === run) {
    const last = isRecording && state.at + 1 >= source.count ? -1 : state.at;
    if (!await showFrame(isRecording ? last + 1 : last)) break;
    if (isRecording && state.at + 1 >= source.count) break;
    due = Math.max(due + wait(last, state.at), performance.now());
    await until(due);
  }
  if (state.run === run) pause();
}

// Milliseconds between two frames of a recording, as they were recorded.
function wait(from, to) {
  if (!isRecording || from < 0 || to !== from + 1) return 0;
  return source.times ? Math.max(0, 1000 * (source.times[to] - source.times[from])) : 1000 / 30;
}

async function until(due) {
  await new Promise((done) => setTimeout(done, Math.max(0, due - performance.now())));
  while (document.hidden && state.playing) await new Promise((done) => setTimeout(done, 200));
}

async function showFrame(at) {
  if (!await request("/frame", { at })) return false;
  state.at = state.frame.at;
  showPosition();
  const now = performance.now();
  state.came = [...state.came.filter((time) => now - time < 3000), now];
  const [first, count] = [state.came[0], state.came.length];
  $("rate").textContent = state.playing && count > 1
    ? `${((count - 1) / (now - first) * 1000).toFixed(1)} frames a second` : "";
  return true;
}

function showPosition() {
  $("seek").value = state.at;
  if (isRecording) $("position").textContent = `Frame ${state.at + 1} of ${source.count}`;
}

// Shows another frame of the recording.
function go(at) {
  if (!isRecording) return;
  pause();
  showFrame(Math.min(source.count - 1, Math.max(0, at)));
}

function buildPlayer() {
  $("player").hidden = $("play-keys").hidden = !source;
  $("drop").open = !source;
  if (!source) return;
  for (const id of ["steps-through", "seek-choice", "step-keys"]) $(id).hidden = !isRecording;
  $("seek").max = isRecording ? source.count - 1 : 0;
  $("play").addEventListener("click", () => (state.playing ? pause() : play()));
  $("previous").addEventListener("click", () => go(state.at - 1));
  $("next").addEventListener("click", () => go(state.at + 1));
  $("seek").addEventListener("input", () => go(+$("seek").value));
  play();
}

// -- showing --------------------------------------------------------------------------------------

function show(frame) {
  const other = !state.frame || state.frame.width !== frame.width
    || state.frame.height !== frame.height;
  state.frame = frame;
  $("result").hidden = false;
  $("name").textContent = frame.name;
  // A screen reader need not hear the times of each of many frames.
  $("status").setAttribute("aria-live", state.playing ? "off" : "polite");
  tell(described(frame));
  $("notes").replaceChildren(...frame.notes.map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
  frame.depthLayer = depthLayer(frame);
  frame.ground = frame.color ?? frame.depthLayer;
  for (const part of ["color", "depth"]) $(`${part}-view`).hidden = !frame[part];
  if (frame.color) compose("color", frame, frame.color);
  if (frame.depthLayer) compose("depth", frame, frame.depthLayer);
  compose("confidence", frame, paint(frame, (i) => {
    const value = frame.confidence[i];
    return packed(value, value, value);
  }));
  limitHeight("overlay", frame);
  updateLegend();
  drawLabels();
  if (other) {
    state.cross = state.pixel = null;
    $("cross").style.display = "none";
    readout();
  } else if (state.pixel) {
    readout(...state.pixel);
  }
  document.body.dataset.frame = frame.name;
}

function described(frame) {
  const { read, label } = frame.seconds;
  const time = (seconds) => (seconds < 1 ? `${Math.round(1000 * seconds)} ms`
    : `${seconds.toFixed(1)} s`);
  const first = state.playing || !read ? "" : `read in ${time(read)}, `;
  return `${frame.width}x${frame.height}: ${first}labelled in ${time(label)} (${data.place}), `
    + `here after ${time((performance.now() - frame.asked) / 1000)}`;
}

function drawLabels() {
  const frame = state.frame;
  if (!frame) return;
  frame.labelLayer = labelLayer(frame, frame.labels, data.colors, shown);
  compose("labels", frame, frame.labelLayer);
  drawOverlay();
}

function drawOverlay() {
  const context = compose("overlay", state.frame, state.frame.ground);
  context.globalAlpha = $("strength").value / 100;
  context.drawImage(state.frame.labelLayer, 0, 0);
}

// Depth from near (light) to far (dark blue); black where there is no reading.
const RAMP = [[255, 244, 204], [252, 186, 92], [222, 96, 92], [140, 44, 120], [52, 24, 102]];

function depthLayer(frame) {
  if (!frame.depth) return null;
  let [near, far] = [Infinity, 0];
  for (const value of frame.depth) {
    if (value && value < near) near = value;
    if (value > far) far = value;
  }
  const metres = (value) => (frame.scaled ? value : `${(value / 1000).toFixed(2)} m`);
  $("depth-span").textContent = far
    ? `${metres(near)} is light, ${metres(far)} dark; black: no reading` : "no reading";
  const colors = Uint32Array.from({ length: 256 }, (_, i) => {
    const place = i / 256 * (RAMP.length - 1);
    const [from, to] = [RAMP[Math.floor(place)], RAMP[Math.floor(place) + 1]];
    return packed(...from.map((value, k) => value + (to[k] - value) * (place % 1)));
  });
  const step = 255 / Math.max(1, far - near);
  const black = packed(0, 0, 0);
  return paint(frame, (i) => {
    const value = frame.depth[i];
    return value ? colors[Math.round((value - near) * step)] : black;
  });
}

function updateLegend() {
  const { labels } = state.frame;
  const counts = new Uint32Array(256);
  for (let i = 0; i < labels.length; i++) counts[labels[i]]++;
  data.names.forEach((_, label) => {
    const row = $("l" + label);
    if (!row) return;
    const share = counts[label] / labels.length;
    row.querySelector(".pixels").textContent = share ? percent(share) : "";
    row.style.backgroundSize = `${100 * share}% 100%`;
    row.hidden = !share && data.names.length > 14;
  });
}

function readout(x, y) {
  const frame = state.frame;
  if (x === undefined) {
    $("readout").textContent = "Point at a picture to read its pixels.";
    return;
  }
  state.pixel = [x, y];
  const i = y * frame.width + x;
  const sure = frame.confidence[i];
  const label = frame.labels[i] || sure ? `${data.names[frame.labels[i]]}, probability `
    + `${Math.round(sure / 2.55)} %` : "beyond what the net was shown";
  $("readout").textContent = `x ${x}, y ${y}: ${label}${depthAt(i)}`;
}

function depthAt(i) {
  const { depth, scaled } = state.frame;
  if (!depth) return "";
  if (scaled) return `; depth ${depth[i]} of 255`;
  return depth[i] ? `; depth ${(depth[i] / 1000).toFixed(3)} m` : "; no depth";
}

function watchPictures() {
  for (const id of ["overlay", "color", "depth", "labels", "confidence"]) {
    $(id).addEventListener("pointermove", (event) => {
      if (!state.frame) return;
      $("readout").setAttribute("aria-live", "off");
      readout(...pointed(event, state.frame));
    });
  }
  // A tap or click keeps the pixel, so that a phone reads it, too, and frames that come after.
  $("overlay").addEventListener("pointerdown", (event) => {
    if (!state.frame) return;
    state.cross = placeCross(state.frame, ...pointed(event, state.frame));
    readout(...state.cross);
  });
  $("overlay").addEventListener("keydown", (event) => {
    const at = state.frame && arrowed(event, state.frame, state.cross);
    if (!at) return;
    // Screen readers announce pixels chosen by keyboard, not those that the pointer passes.
    $("readout").setAttribute("aria-live", "polite");
    state.cross = placeCross(state.frame, ...at);
    readout(...state.cross);
  });
  $("strength").addEventListener("input", () => state.frame && drawOverlay());
}

function describeModel() {
  const parts = [`looks at ${PARTS.map((part) => WORDS[part]).join(" and ")} at `
    + `${data.size.join("x")} (other shapes: ${data.fit})`, `${data.names.length - 1} classes`];
  if (data.depth) {
    parts.push(`depth range ${data.depth_range}`
      + (data.depth_range_assumed ? " (assumed: nothing says how the net was trained)" : ""));
  }
  if (data.aligns) parts.push("depth is projected into the colour picture");
  for (const { frames, mean_iou: iou } of data.figures) {
    if (iou !== undefined) parts.push(`mean IoU ${percent(iou)} on ${frames ?? "its"} test frames`);
  }
  const text = parts.join("; ");
  $("model").textContent = `The net ${text}. Nothing that you show it is stored or sent elsewhere.`;
  const files = PARTS.length > 1 ? "a colour and a depth file" : `a ${WORDS[PARTS[0]]} file`;
  $("hint").textContent = `Drop ${files} anywhere on this page, or choose ${
    PARTS.length > 1 ? "them" : "it"} here.`;
}

describeModel();
buildLegend(data.names, data.colors, shown, drawLabels);
watchFiles();
watchPictures();
buildPlayer();
watchKeys({
  a: () => choose(data.names.keys(), shown, drawLabels), o: () => choose([], shown, drawLabels),
  n: () => go(state.at + 1), p: () => go(state.at - 1),
  " ": (event) => {
    if (!source || event.target.matches("button, input")) return;
    event.preventDefault();
    if (state.playing) pause(); else play();
  },
});
document.body.dataset.frame = document.body.dataset.frame ?? "none";
