/**
 * Log lines: JSON on standard error, one a line, with the node and what it is about as fields.
 */
import { destination, pino } from 'pino';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';

/** `fields` first, then the sentence for a person. */
export type Log = (
  level: Exclude<LogLevel, 'silent'>,
  fields: Readonly<Record<string, unknown>>,
  message: string,
) => void;

/** A log on standard error. Written synchronously, so that the last line before a stop is there. */
export function openLog(options: {
  readonly level: LogLevel;
  /** This node's id; 0 as long as the cluster has not given it one. Asked for with each line. */
  readonly node: () => number;
}): Log {
  const logger = pino(
    { level: options.level, base: {}, mixin: () => ({ node: options.node() }) },
    destination({ fd: 2, sync: true }),
  );
  return (level, fields, message) => {
    logger[level](fields, message);
  };
}

/** For tests and tools that want quiet. */
export const silentLog: Log = () => undefined;
