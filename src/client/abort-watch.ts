/**
 * One listener per signal, however many operations it stands for: Node warns of a leak from the
 * eleventh listener on, and takes them off one by one in linear time.
 */
interface Watch {
  readonly reactions: Set<() => void>;
  readonly listener: () => void;
}

const watches = new WeakMap<AbortSignal, Watch>();

/** `react` is called once at most: when the signal is aborted, unless `stopWatching` came before. */
export function watchAbort(signal: AbortSignal | undefined, react: () => void): void {
  if (signal === undefined) return;
  let watch = watches.get(signal);
  if (watch === undefined) {
    const reactions = new Set<() => void>();
    const listener = (): void => {
      watches.delete(signal);
      for (const each of reactions) each();
    };
    watch = { reactions, listener };
    watches.set(signal, watch);
    signal.addEventListener('abort', listener, { once: true });
  }
  watch.reactions.add(react);
}

export function stopWatching(signal: AbortSignal | undefined, react: () => void): void {
  const watch = signal && watches.get(signal);
  if (signal === undefined || watch === undefined) return;
  watch.reactions.delete(react);
  if (watch.reactions.size > 0) return;
  // A signal may live as long as the program: nothing of a finished call stays with it.
  watches.delete(signal);
  signal.removeEventListener('abort', watch.listener);
}
