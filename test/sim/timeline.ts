/**
 * Simulated time: one binary heap of events for the whole world. Two events of the same moment
 * happen in the order in which they were scheduled, so that a run is a function of its seed.
 */
interface Scheduled {
  readonly at: number;
  readonly order: number;
  readonly act: () => void;
}

/** A run of some seconds has some 100,000 events; one that has this many will never end. */
const eventsMax = 3_000_000;

export class Timeline {
  /** Milliseconds since the beginning of the run. */
  now = 0;
  private readonly heap: Scheduled[] = [];
  private scheduled = 0;
  private happened = 0;

  /** Lets `act` happen `delayMs` from now; negative delays count as 0. */
  after(delayMs: number, act: () => void): void {
    const event = { at: this.now + Math.max(0, delayMs), order: this.scheduled++, act };
    this.heap.push(event);
    this.siftUp(this.heap.length - 1);
  }

  /** Runs all events up to `untilMs`, or until `stop` says so; leaves the clock at the last one. */
  run(untilMs: number, stop?: () => boolean): void {
    while (this.step(untilMs)) if (stop?.() === true) return;
  }

  /** Runs the next event; false when none is left up to `untilMs`, which is the time then. */
  step(untilMs: number): boolean {
    const next = this.heap[0];
    if (next === undefined || next.at > untilMs) {
      this.now = Math.max(this.now, untilMs);
      return false;
    }
    this.removeFirst();
    this.now = next.at;
    if (++this.happened > eventsMax) throw new Error(`more than ${eventsMax} events`);
    next.act();
    return true;
  }

  private removeFirst(): void {
    const last = this.heap.pop();
    if (last === undefined || this.heap.length === 0) return;
    this.heap[0] = last;
    this.siftDown();
  }

  private siftUp(from: number): void {
    const { heap } = this;
    let at = from;
    const event = heap[at];
    while (at > 0 && event !== undefined) {
      const parentAt = (at - 1) >> 1;
      const parent = heap[parentAt];
      if (parent === undefined || !before(event, parent)) break;
      heap[at] = parent;
      at = parentAt;
    }
    if (event !== undefined) heap[at] = event;
  }

  private siftDown(): void {
    const { heap } = this;
    const event = heap[0];
    if (event === undefined) return;
    let at = 0;
    for (;;) {
      let childAt = 2 * at + 1;
      let child = heap[childAt];
      if (child === undefined) break;
      const right = heap[childAt + 1];
      if (right !== undefined && before(right, child)) {
        child = right;
        childAt++;
      }
      if (!before(child, event)) break;
      heap[at] = child;
      at = childAt;
    }
    heap[at] = event;
  }
}

function before(one: Scheduled, other: Scheduled): boolean {
  return one.at < other.at || (one.at === other.at && one.order < other.order);
}
