// Draws strokes, sends them to the server as a picture with every change, and shows the predictions.
"use strict";

const PEN = 0.075; // width of a stroke, as a fraction of the pad's side
const STEP = 1 / 28; // distance that an arrow key moves the pen, as a fraction of the pad's side
const SENT_SIDE = 280; // pixels
const EMPTY = "The answer appears here and changes as you draw.";

const pad = document.getElementById("pad");
const seen = document.getElementById("seen");
const answerSection = document.getElementById("answer");
const prediction = document.getElementById("prediction");
const input = document.getElementById("input");
const hint = document.getElementById("hint");
const spoken = document.getElementById("spoken"); // for screen readers
const buttons = { undo: document.getElementById("undo"), clear: document.getElementById("clear") };
const bars = Array.from({ length: 10 }, (_, digit) => {
  const row = document.createElement("li");
  row.innerHTML = `<span>${digit}</span><span class="track"><span class="fill"></span></span><span class="percent"></span>`;
  document.getElementById("bars").append(row);
  return { row, fill: row.querySelector(".fill"), percent: row.querySelector(".percent") };
});

let strokes = []; // lists of points [x, y], as fractions of the pad's side
let pointer = null; // id of the mouse or finger that is drawing a stroke
const pen = { x: 0.5, y: 0.5, isShown: false, isDown: false };
const pressed = new Set(); // arrow keys

// --- drawing

function paint(canvas, ink, paper) {
  const context = canvas.getContext("2d");
  const side = canvas.width;
  context.fillStyle = paper;
  context.fillRect(0, 0, side, side);
  context.strokeStyle = ink;
  context.lineWidth = PEN * side;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) {
    context.beginPath();
    context.moveTo(stroke[0][0] * side, stroke[0][1] * side);
    for (const [x, y] of stroke) context.lineTo(x * side, y * side + 0.01); // draws a single point as a dot
    context.stroke();
  }
}

function repaint() {
  const colours = getComputedStyle(document.documentElement);
  pad.width = pad.height = Math.max(1, Math.round(pad.clientWidth * devicePixelRatio));
  paint(pad, colours.getPropertyValue("--ink"), colours.getPropertyValue("--card"));
  if (pen.isShown) {
    const context = pad.getContext("2d");
    const [x, y, radius] = [pen.x * pad.width, pen.y * pad.width, (PEN / 2) * pad.width];
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.lineWidth = 2 * devicePixelRatio;
    context.strokeStyle = colours.getPropertyValue("--best");
    context.stroke();
    if (pen.isDown) {
      context.fillStyle = colours.getPropertyValue("--best");
      context.fill();
    }
  }
  buttons.undo.disabled = buttons.clear.disabled = !strokes.length;
  hint.hidden = strokes.length > 0;
}

function change() {
  repaint();
  ask();
}

function keep(strokesKept) {
  strokes = strokesKept;
  pen.isDown = false;
  pointer = null; // ends the stroke that is being drawn
  change();
}

const undo = () => keep(strokes.slice(0, -1));
const clear = () => keep([]);

// --- predictions

let drawing = 0; // number of changes so far
let isAsking = false;

async function ask() {
  drawing += 1;
  if (isAsking) return;
  isAsking = true;
  answerSection.ariaBusy = "true";
  let asked;
  do {
    asked = drawing;
    const answer = await answerTo(strokes.length > 0);
    if (asked === drawing || strokes.length) show(answer); // skips an outdated answer if the pad is empty
  } while (asked !== drawing);
  isAsking = false;
  answerSection.ariaBusy = "false";
  speakAnswer();
}

async function answerTo(isDrawn) {
  if (!isDrawn) return { note: EMPTY };
  const sent = document.createElement("canvas");
  sent.width = sent.height = SENT_SIDE;
  paint(sent, "black", "white");
  const body = await new Promise((resolve) => sent.toBlob(resolve, "image/png"));
  try {
    const response = await fetch("/answer", { method: "POST", headers: { "Content-Type": "image/png" }, body });
    const answer = await response.json();
    return response.ok ? answer : { note: `${answer.error[0].toUpperCase()}${answer.error.slice(1)}.` };
  } catch {
    return { note: "The program does not answer; start it again and reload this page." };
  }
}

function show(answer) {
  const best = answer.probabilities ? answer.digit : -1;
  bars.forEach(({ row, fill, percent }, digit) => {
    const probability = answer.probabilities ? answer.probabilities[digit] : 0;
    fill.style.width = `${100 * probability}%`;
    percent.textContent = answer.probabilities ? `${(100 * probability).toFixed(1)} %` : "";
    row.classList.toggle("best", digit === best);
  });
  if (answer.probabilities) {
    const digit = document.createElement("strong");
    digit.textContent = answer.digit;
    const percents = (100 * answer.probabilities[answer.digit]).toFixed(1);
    prediction.replaceChildren(digit, ` ${percents} %, runner-up\u00a0${answer.runner_up}`);
  } else {
    prediction.textContent = answer.note;
  }
  input.classList.toggle("empty", !answer.image);
  const context = seen.getContext("2d");
  const pixels = context.createImageData(28, 28);
  for (let place = 0; place < 28 * 28; place += 1) {
    const level = answer.image ? answer.image[Math.floor(place / 28)][place % 28] : 0;
    pixels.data.set([level, level, level, 255], 4 * place);
  }
  context.putImageData(pixels, 0, 0);
}

function speakAnswer() {
  // After a stroke: an answer to each of its points would drown everything else.
  if (!isAsking && pointer === null && !pen.isDown) spoken.textContent = prediction.textContent;
}

// --- mouse, finger and stylus

function pointOf(event) {
  const box = pad.getBoundingClientRect();
  const part = (value) => Math.min(1, Math.max(0, value));
  return [part((event.clientX - box.left) / box.width), part((event.clientY - box.top) / box.height)];
}

pad.addEventListener("pointerdown", (event) => {
  if (pointer !== null || event.button !== 0) return;
  pointer = event.pointerId;
  pad.setPointerCapture(pointer);
  pen.isShown = pen.isDown = false;
  strokes.push([pointOf(event)]);
  change();
});

pad.addEventListener("pointermove", (event) => {
  if (event.pointerId !== pointer || !strokes.length) return;
  const passed = event.getCoalescedEvents?.() ?? [];
  for (const each of passed.length ? passed : [event]) strokes.at(-1).push(pointOf(each));
  change();
});

for (const end of ["pointerup", "pointercancel"]) {
  pad.addEventListener(end, (event) => {
    if (event.pointerId !== pointer) return;
    pointer = null;
    speakAnswer();
  });
}

// --- keyboard

const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

pad.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key in DIRECTIONS) {
    pressed.add(event.key); // two arrow keys together move diagonally
    for (const key of pressed) {
      pen.x = Math.min(1, Math.max(0, pen.x + STEP * DIRECTIONS[key][0]));
      pen.y = Math.min(1, Math.max(0, pen.y + STEP * DIRECTIONS[key][1]));
    }
    if (pen.isDown) strokes.at(-1).push([pen.x, pen.y]);
  } else if (event.key === " ") {
    if (!event.repeat) pen.isDown = !pen.isDown;
    if (pen.isDown && !event.repeat) strokes.push([[pen.x, pen.y]]);
  } else if (event.key === "Backspace" || event.key === "Delete") {
    if (strokes.length) undo();
  } else if (event.key === "Escape") {
    if (strokes.length) clear();
  } else {
    return;
  }
  event.preventDefault();
  pen.isShown = true;
  const [column, row] = [pen.x, pen.y].map((part) => Math.round(part / STEP));
  spoken.textContent = `Pen ${pen.isDown ? "down" : "up"}, column ${column}, row ${row} of ${1 / STEP}`;
  if (pen.isDown) change();
  else repaint();
  if (event.key === " ") speakAnswer();
});

pad.addEventListener("keyup", (event) => pressed.delete(event.key));

pad.addEventListener("blur", () => {
  pressed.clear();
  pen.isShown = pen.isDown = false;
  repaint();
});

buttons.undo.addEventListener("click", undo);
buttons.clear.addEventListener("click", clear);
new ResizeObserver(repaint).observe(pad);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
show({ note: EMPTY });
