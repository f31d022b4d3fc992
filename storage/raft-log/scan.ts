/**
 * Reads one segment from its bytes, and says where it stops being valid and what stands behind.
 */
import { findLaterWrite, readFrame } from './frame.js';
import type { Frame } from './frame.js';
import { headerProblem, segmentHeaderBytes, segmentSeed } from './segment.js';

export interface SegmentScan {
  /** The frames up to the first bad one. */
  readonly frames: readonly Frame[];
  /** End of the last valid frame; 0 if header or checkpoint are bad: it was never completed. */
  readonly validEnd: number;
  /** What is wrong at `validEnd`; undefined if the segment is valid to its last byte. */
  readonly problem: ScanProblem | undefined;
}

export interface ScanProblem {
  readonly offset: number;
  readonly reason: string;
  /** Where a valid frame of a later write stands: then this is damage, not a torn write (D11). */
  readonly laterFrame: number | undefined;
}

/** Throws RangeError on a format version or a header that this program must not touch. */
export function scanSegment(bytes: Buffer, id: number): SegmentScan {
  const seed = segmentSeed(id);
  const frames: Frame[] = [];
  let problem = headerProblem(bytes, id);
  let end = problem === undefined ? segmentHeaderBytes : 0;
  while (problem === undefined && (end < bytes.length || frames.length === 0)) {
    const frame = readFrame(bytes, { offset: end, base: 0, seed });
    if (typeof frame === 'string') {
      problem = frame;
    } else {
      frames.push(frame);
      end += frame.length;
    }
  }
  // Header and checkpoint are one write: without both the segment was not yet in use.
  const validEnd = frames.length === 0 ? 0 : end;
  if (problem === undefined) return { frames, validEnd, problem: undefined };
  const laterFrame = findLaterWrite(bytes, { offset: end, seed });
  return { frames, validEnd, problem: { offset: end, reason: problem, laterFrame } };
}
