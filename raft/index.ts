/**
 * The public surface of the algorithm: the only file that the server imports. Tests and simulation
 * see more, above all describe.ts and invariants.ts. README.md beside it is the tour.
 */
export * from './types.js';
export * from './message.js';
export * from './ready.js';
export * from './options.js';
export * from './raw-node.js';
export { RaftInvariantError } from './assert.js';
export { forceRecovery, type ForcedRecovery } from './recovery.js';
export { committedIndex, voteResult, type VoteResult } from './quorum.js';
export {
  decodeMembership,
  encodeMembership,
  isJoint,
  isMember,
  isVoter,
  membershipOf,
} from './membership.js';
