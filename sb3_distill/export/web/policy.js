// The integer policy of integer_policy.py, which is the specification: equal integers for equal observations.
"use strict";

// sums * multiplier / 2^shift, rounded half up, within the bounds. All numbers stay below 2^53, so they are exact.
function rescale(sum, multiplier, shift, low, high) {
  const scaled = Math.floor((sum * multiplier + 2 ** (shift - 1)) / 2 ** shift);
  return Math.min(Math.max(scaled, low), high);
}

function tanh(value, table) {
  const size = Math.abs(value), place = size >> 8, rest = size & 255;
  return Math.sign(value) * (table[place] + (((table[place + 1] - table[place]) * rest + 128) >> 8));
}

// Half to even, as numpy and C round
function rint(value) {
  const floor = Math.floor(value), rest = value - floor;
  return rest < 0.5 || (rest === 0.5 && floor % 2 === 0) ? floor : floor + 1;
}

const pick = (numbers, index) => numbers[numbers.length === 1 ? 0 : index];

function levels(observation, inputs) {
  return observation.map((entry, index) => {
    const shifted = Math.fround(Math.fround(entry) - pick(inputs.offset, index));
    let scaled = Math.fround(shifted / pick(inputs.step, index));
    if (Number.isNaN(scaled)) scaled = 0;
    return rint(Math.min(Math.max(scaled, pick(inputs.low, index)), pick(inputs.high, index)));
  });
}

function output(layer, sum, channel, table) {
  const value = sum * layer.scale + layer.bias[channel];
  const to = (low, high) => rescale(value, layer.multiplier[channel], layer.shift[channel], low, high);
  if (layer.activation === "") return to(layer.low, layer.high) - layer.zero;
  const steps = to(-table.full, table.full);
  if (layer.activation === "stairs") return layer.low + layer.borders.filter((border) => border <= steps).length - layer.zero;
  let result = tanh(steps, table.tanh);
  if (layer.activation === "sigmoid") result += table.full;
  if (layer.after !== null) result = rescale(result, layer.after[0], layer.after[1], layer.low, layer.high);
  return result - layer.zero;
}

function forward(layer, values, table) {
  const [outputs, channels, kernelHeight, kernelWidth] = layer.weight_shape, [, height, width] = layer.shape;
  const results = [];
  for (let channel = 0; channel < outputs; channel++) {
    let largest = -Infinity;
    for (let top = 0; top + kernelHeight <= height; top += layer.stride[0]) {
      for (let left = 0; left + kernelWidth <= width; left += layer.stride[1]) {
        let sum = 0, weight = channel * channels * kernelHeight * kernelWidth;
        for (let plane = 0; plane < channels; plane++)
          for (let row = 0; row < kernelHeight; row++)
            for (let column = 0; column < kernelWidth; column++)
              sum += layer.weight[weight++] * values[(plane * height + top + row) * width + left + column];
        const result = output(layer, sum, channel, table);
        if (!layer.pool) results.push(result);
        largest = Math.max(largest, result);
      }
    }
    if (layer.pool) results.push(largest);
  }
  return results;
}

// The integers of which the largest one is the action
function outputs(policy, observation) {
  let values = policy.inputs === null ? observation : levels(observation, policy.inputs);
  for (const layer of policy.layers) values = forward(layer, values, policy.table);
  // The quantiles of one action are added up.
  return Array.from({ length: policy.n_actions }, (_, action) =>
    values.filter((_, index) => index % policy.n_actions === action).reduce((sum, value) => sum + value, 0));
}

function act(policy, observation) {
  const values = outputs(policy, observation);
  return values.indexOf(Math.max(...values));
}
