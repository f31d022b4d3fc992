export * from './engine.js';
export * from './raft-log/raft-log.js';
