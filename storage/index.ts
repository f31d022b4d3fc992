export * from './engine.js';
export * from './raft-log/raft-log.js';
export * from './raft-log/types.js';
export * from './raft-log/disk.js';
export * from './raft-log/failure.js';
