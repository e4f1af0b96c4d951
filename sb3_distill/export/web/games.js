// Games in which an exported student plays: reset, step (whether the episode goes on), observation, draw.
"use strict";

const BACKGROUND = "#f7f7f5", INK = "#33373d", ACCENT = "#c2592a", BRICK = "#5b7fa6", TRAIL = "#e3b9a0";

function fill(context, colour, x, y, width, height) {
  context.fillStyle = colour;
  context.fillRect(x, y, width, height);
}

// CartPole-v1 of Gymnasium
class CartPole {
  constructor(random) {
    this.random = random;
    this.frameMilliseconds = 20;
    this.reset();
  }

  reset() {
    this.state = Array.from({ length: 4 }, () => 0.1 * this.random() - 0.05);
    this.score = 0;
  }

  step(action) {
    let [x, speed, angle, turn] = this.state;
    const force = action === 1 ? 10.0 : -10.0, cosine = Math.cos(angle), sine = Math.sin(angle);
    const push = (force + 0.05 * turn * turn * sine) / 1.1;
    const turning = (9.8 * sine - cosine * push) / (0.5 * (4.0 / 3.0 - (0.1 * cosine * cosine) / 1.1));
    const speeding = push - (0.05 * turning * cosine) / 1.1;
    this.state = [x + 0.02 * speed, speed + 0.02 * speeding, angle + 0.02 * turn, turn + 0.02 * turning];
    this.score += 1;
    return Math.abs(this.state[0]) <= 2.4 && Math.abs(this.state[2]) <= (12 * 2 * Math.PI) / 360 && this.score < 500;
  }

  observation() {
    return this.state.map(Math.fround);
  }

  draw(context, width, height) {
    const scale = width / 4.8, ground = 0.75 * height, x = width / 2 + this.state[0] * scale;
    fill(context, BACKGROUND, 0, 0, width, height);
    fill(context, INK, 0, ground, width, 1);
    fill(context, INK, x - 0.25 * scale, ground - 0.3 * scale, 0.5 * scale, 0.3 * scale);
    context.strokeStyle = ACCENT;
    context.lineWidth = 0.1 * scale;
    context.lineCap = "round";
    context.beginPath();
    context.moveTo(x, ground - 0.3 * scale);
    context.lineTo(x + scale * Math.sin(this.state[2]), ground - 0.3 * scale - scale * Math.cos(this.state[2]));
    context.stroke();
  }
}

// MinAtar/Breakout-v1, whose version 1 has the actions nothing, left, right; one action of ten is the one before
class Breakout {
  constructor(random) {
    this.random = random;
    this.frameMilliseconds = 60;
    this.reset();
  }

  reset() {
    [this.x, this.direction] = this.random() < 0.5 ? [0, 2] : [9, 3];
    this.y = 3;
    [this.lastX, this.lastY] = [this.x, this.y];
    this.paddle = 4;
    this.build();
    this.struck = false;
    this.lastAction = 0;
    this.score = 0;
  }

  build() {
    this.bricks = Array.from({ length: 10 }, (_, row) => new Array(10).fill(row >= 1 && row <= 3 ? 1 : 0));
  }

  step(wanted) {
    const action = this.random() < 0.1 ? this.lastAction : wanted;
    this.lastAction = action;
    if (action === 1) this.paddle = Math.max(0, this.paddle - 1);
    if (action === 2) this.paddle = Math.min(9, this.paddle + 1);
    [this.lastX, this.lastY] = [this.x, this.y];
    let x = this.x + (this.direction === 1 || this.direction === 2 ? 1 : -1);
    let y = this.y + (this.direction >= 2 ? 1 : -1);
    if (x < 0 || x > 9) {
      x = x < 0 ? 0 : 9;
      this.direction = [1, 0, 3, 2][this.direction];
    }
    let strikes = false, goesOn = true;
    if (y < 0) {
      y = 0;
      this.direction = [3, 2, 1, 0][this.direction];
    } else if (this.bricks[y][x] === 1) {
      strikes = true;
      if (!this.struck) {
        this.score += 1;
        this.struck = true;
        this.bricks[y][x] = 0;
        y = this.lastY;
        this.direction = [3, 2, 1, 0][this.direction];
      }
    } else if (y === 9) {
      if (this.bricks.every((row) => row.every((brick) => brick === 0))) this.build();
      if (this.x === this.paddle) {
        this.direction = [3, 2, 1, 0][this.direction];
        y = this.lastY;
      } else if (x === this.paddle) {
        this.direction = [2, 3, 0, 1][this.direction];
        y = this.lastY;
      } else {
        goesOn = false;
      }
    }
    if (!strikes) this.struck = false;
    [this.x, this.y] = [x, y];
    return goesOn;
  }

  // Rows, columns, then paddle, ball, trail, bricks
  observation() {
    const planes = new Array(400).fill(0);
    this.bricks.forEach((row, y) => row.forEach((brick, x) => { planes[4 * (10 * y + x) + 3] = brick; }));
    planes[4 * (10 * 9 + this.paddle)] = 1;
    planes[4 * (10 * this.y + this.x) + 1] = 1;
    planes[4 * (10 * this.lastY + this.lastX) + 2] = 1;
    return planes;
  }

  draw(context, width, height) {
    const size = Math.min(width, height) / 10, left = (width - 10 * size) / 2;
    const cell = (colour, x, y) => fill(context, colour, left + x * size, y * size, size - 1, size - 1);
    fill(context, BACKGROUND, 0, 0, width, height);
    this.bricks.forEach((row, y) => row.forEach((brick, x) => brick && cell(BRICK, x, y)));
    cell(TRAIL, this.lastX, this.lastY);
    cell(INK, this.paddle, 9);
    cell(ACCENT, this.x, this.y);
  }
}

const GAMES = { "CartPole-v1": CartPole, "MinAtar/Breakout-v1": Breakout };
