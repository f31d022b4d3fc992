export * from './types.js';
export * from './message.js';
export * from './ready.js';
export * from './raw-node.js';
