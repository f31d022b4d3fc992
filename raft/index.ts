/** The public surface of the algorithm: the only file that other folders import. */
export * from './types.js';
export * from './message.js';
export * from './ready.js';
export * from './options.js';
export * from './raw-node.js';
export { RaftInvariantError } from './assert.js';
export { committedIndex, voteResult, type VoteResult } from './quorum.js';
export {
  decodeMembership,
  encodeMembership,
  isJoint,
  isMember,
  isVoter,
  membershipOf,
} from './membership.js';
