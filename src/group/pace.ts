/**
 * The time of one group: its ticks and those that a stalled loop missed, the first election of a group
 * that is born, and the watch over the members of one that has fallen quiet.
 */
import { noReplica, type RaftOptions, type RawNode } from '../../raft/index.js';
import type { DriverSurroundings } from './group-context.js';

export interface PaceOptions {
  readonly node: RawNode;
  readonly raft: RaftOptions;
  /** It is the one of the group's first members that is to lead first: nobody need wait for a timeout. */
  readonly campaignsAtBirth: boolean;
  readonly surroundings: Pick<DriverSurroundings, 'clock' | 'tickMs' | 'isConnected'>;
}

export class Pace {
  ticks = 0;
  private readonly node: RawNode;
  private readonly raft: RaftOptions;
  private readonly surroundings: PaceOptions['surroundings'];
  private accountedMs: number;
  private campaignsAtBirth: boolean;
  /** The members of the quiet group were all connected, after the last message that came. */
  private watched = false;

  constructor({ node, raft, campaignsAtBirth, surroundings }: PaceOptions) {
    this.node = node;
    this.raft = raft;
    this.campaignsAtBirth = campaignsAtBirth;
    this.surroundings = surroundings;
    this.accountedMs = surroundings.clock.monotonicMs();
  }

  tick(): void {
    this.account(1);
    this.ticks++;
    this.node.tick();
    if (this.campaignsAtBirth) this.campaignAtBirth();
  }

  /** Ticks that a stalled loop did not give are not made up for, but a lease has aged (R30). */
  account(ticks = 0): void {
    const { clock, tickMs } = this.surroundings;
    const passed = Math.floor((clock.monotonicMs() - this.accountedMs) / tickMs);
    const missed = Math.max(0, passed - ticks);
    if (missed > 0) this.node.elapse(missed);
    this.accountedMs += Math.max(ticks, passed) * tickMs;
  }

  /** It may be awake for a moment, and fall quiet again behind a connection that broke meanwhile. */
  heard(): void {
    this.watched = false;
  }

  /** To be called after each tick: in a quiet group nobody else would notice a lost member (D05). */
  watch(): void {
    if (this.node.isQuiet) this.watchOthers();
    this.watched = this.node.isQuiet;
  }

  /** Quiet, and looked at since: ticks would do nothing. */
  get restful(): boolean {
    return this.watched && this.node.isQuiet;
  }

  /**
   * Again and again for an election timeout, since the other members may be born a little later. With
   * pre-votes: it raises no term, and disturbs nobody who is ahead of it.
   */
  private campaignAtBirth(): void {
    const { electionTicks, heartbeatTicks } = this.raft;
    this.campaignsAtBirth =
      this.ticks < electionTicks && this.node.term === 0 && this.node.leader === noReplica;
    if (this.campaignsAtBirth && (this.ticks - 1) % heartbeatTicks === 0)
      this.node.rehearseCampaign();
  }

  private watchOthers(): void {
    const { members } = this.node.membership.membership;
    if (!members.every(({ node }) => this.surroundings.isConnected(node))) this.node.wake();
  }
}
