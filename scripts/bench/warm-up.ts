/**
 * A load is made for so long before it is measured: V8 goes on compiling under it for some ten seconds
 * where all cores are busy (puts of 64 x 1: 6,000 a second in the first 30,000, 10,000 from the third on),
 * and a server runs for longer than that.
 */
export const warmUpSeconds = 10;
