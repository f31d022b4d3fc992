/**
 * One life of a process: its clock, and the gate through which everything reaches it. After its end
 * nothing does; while it is paused, what comes waits in order.
 */
import type { Cancel, Clock } from '../../../src/observe/clock.js';
import type { Timeline } from '../timeline.js';

export interface ClockSetting {
  /** Of the wall clock, ms. */
  readonly offsetMs: number;
  /** Local milliseconds per true millisecond. */
  readonly rate: number;
}

/** 2026-01-01. */
const wallStartMs = Date.UTC(2026, 0, 1);

export class Life implements Clock {
  isOver = false;
  isPaused = false;
  private jumpedMs = 0;
  private readonly backlog: (() => void)[] = [];
  private readonly farewells = new Set<() => void>();
  private readonly timeline: Timeline;
  private readonly setting: ClockSetting;
  private readonly onEntry: () => void;

  /** `onEntry`: told of everything that has reached the process. */
  constructor(timeline: Timeline, setting: ClockSetting, onEntry: () => void = () => undefined) {
    this.timeline = timeline;
    this.setting = setting;
    this.onEntry = onEntry;
  }

  /** The wall clock is set anew. */
  jump(ms: number): void {
    this.jumpedMs += ms;
  }

  /** Something reaches the process. */
  enter(act: () => void): void {
    if (this.isOver) return;
    if (this.isPaused) {
      this.backlog.push(act);
      return;
    }
    this.onEntry();
    act();
  }

  pause(): void {
    this.isPaused = true;
  }

  resume(): void {
    if (!this.isPaused) return;
    this.isPaused = false;
    for (const act of this.backlog.splice(0))
      this.timeline.after(0, () => {
        this.enter(act);
      });
  }

  end(): void {
    if (this.isOver) return;
    this.isOver = true;
    this.backlog.length = 0;
    for (const farewell of [...this.farewells]) farewell();
    this.farewells.clear();
  }

  /** Called when the process is gone, unless cancelled before. */
  onEnd(farewell: () => void): Cancel {
    this.farewells.add(farewell);
    return () => {
      this.farewells.delete(farewell);
    };
  }

  monotonicMs(): number {
    return this.timeline.now * this.setting.rate;
  }

  wallMs(): number {
    return wallStartMs + this.setting.offsetMs + this.jumpedMs + this.monotonicMs();
  }

  after(delayMs: number, fire: () => void): Cancel {
    let isOn = true;
    this.timeline.after(delayMs / this.setting.rate, () => {
      this.enter(() => {
        if (!isOn) return;
        isOn = false;
        fire();
      });
    });
    return () => {
      isOn = false;
    };
  }

  every(intervalMs: number, tick: () => void): Cancel {
    let cancel: Cancel = () => undefined;
    let isOn = true;
    const again = (): void => {
      cancel = this.after(intervalMs, () => {
        tick();
        // The tick may have stopped itself.
        if (isOn) again();
      });
    };
    again();
    return () => {
      isOn = false;
      cancel();
    };
  }

  /** Given away as a function by itself. */
  readonly endOfTurn = (run: () => void): void => {
    this.timeline.after(0, () => {
      this.enter(run);
    });
  };
}
