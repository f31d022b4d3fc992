/** The ways between places (nodes and clients): each in each direction with a fate of its own. */
import type { SimRandom } from '../random.js';
import type { Timeline } from '../timeline.js';
import type { LinkPlan } from './plan.js';

/** A perfect network for the end of a run. */
const healedPlan: LinkPlan = { delayMinMs: 0.3, delayMaxMs: 2, loss: 0, longHold: 0 };

/** Between two tries to get through. */
export const retransmitMs = 150;

interface Link {
  cuts: number;
  slowness: number;
}

export class Links {
  private readonly links = new Map<string, Link>();
  private readonly timeline: Timeline;
  private readonly random: SimRandom;
  private readonly count: (what: 'frame lost' | 'held back for long') => void;
  private plan: LinkPlan;

  constructor(parts: {
    readonly timeline: Timeline;
    readonly plan: LinkPlan;
    readonly random: SimRandom;
    readonly count: Links['count'];
  }) {
    this.timeline = parts.timeline;
    this.plan = parts.plan;
    this.random = parts.random;
    this.count = parts.count;
  }

  cut(from: number, to: number): void {
    this.link(from, to).cuts++;
  }

  mend(from: number, to: number): void {
    const link = this.link(from, to);
    link.cuts = Math.max(0, link.cuts - 1);
  }

  slow(from: number, to: number, times: number): void {
    this.link(from, to).slowness = times;
  }

  isCut(from: number, to: number): boolean {
    return this.link(from, to).cuts > 0;
  }

  heal(): void {
    this.links.clear();
    this.plan = healedPlan;
  }

  /** Calls `arrive` some time later, unless it is lost; what is cut meanwhile is lost on its way. */
  carry(from: number, to: number, arrive: () => void): void {
    if (this.isCut(from, to)) return;
    if (this.random.chance(this.plan.loss)) {
      this.count('frame lost');
      return;
    }
    this.timeline.after(this.delayMs(from, to), () => {
      if (!this.isCut(from, to)) arrive();
    });
  }

  /** As a connection does: what is cut is sent again when the way is mended. */
  carrySurely(from: number, to: number, arrive: () => void): void {
    const attempt = (): void => {
      if (this.isCut(from, to)) this.timeline.after(retransmitMs, attempt);
      else arrive();
    };
    this.timeline.after(this.delayMs(from, to), attempt);
  }

  delayMs(from: number, to: number): number {
    const { delayMinMs, delayMaxMs, longHold } = this.plan;
    if (this.random.chance(longHold)) {
      this.count('held back for long');
      return this.random.between(200, 4000);
    }
    return this.random.tailed(delayMinMs, delayMaxMs) * this.link(from, to).slowness;
  }

  private link(from: number, to: number): Link {
    const key = `${from}>${to}`;
    const known = this.links.get(key);
    if (known !== undefined) return known;
    const link: Link = { cuts: 0, slowness: 1 };
    this.links.set(key, link);
    return link;
  }
}
