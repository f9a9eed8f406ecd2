/* tape.c - encoded values as a flat tape of 64-bit words, and messages as a list of section offsets. This is how
 * everything that Python looks into crosses the binding: one call, one array of integers, no object per value. Nothing
 * is allocated; what is malformed is found before a word is believed.
 *
 * The tape. Each value is one word, whose low 8 bits are its kind and whose upper 56 bits (called n here, word >> 8)
 * depend on it, and then what the kind says. Several values one after another in the buffer stand one after another.
 *
 *   kind            n                            then
 *    0 null         0
 *    1 boolean      0 or 1
 *    2 ubyte        value
 *    3 ushort       value
 *    4 uint         value
 *    5 byte         value + 2**31 (never < 0)
 *    6 short        value + 2**31
 *    7 int          value + 2**31
 *    8 char         code point
 *    9 float        its 32 bits
 *   10 ulong        0                            1 word: value
 *   11 long         0                            1 word: value modulo 2**64
 *   12 timestamp    0                            1 word: milliseconds modulo 2**64
 *   13 double       0                            1 word: its 64 bits
 *   14 uuid         16                           1 word: offset of the n bytes from the start of the buffer
 *   15 decimal32    4                            1 word: offset
 *   16 decimal64    8                            1 word: offset
 *   17 decimal128   16                           1 word: offset
 *   18 binary       length                       1 word: offset
 *   19 string       length in bytes (UTF-8)      1 word: offset; the UTF-8 is *not* checked
 *   20 symbol       length                       1 word: offset
 *   21 list         number of items              the items
 *   22 map          number of pairs              key, value, key, value, ...
 *   23 array        number of elements           1 word: number of descriptors << 8 | format code of the elements
 *                                                (such as 0xa3; it tells the type of an empty array);
 *                                                the descriptors, outermost first; the elements, without descriptors
 *   24 described    0                            the descriptor, the value
 *
 * So kinds 0..9 are one word, 10..20 two words, 21..24 hold values. An array whose constructor is described has its
 * descriptors once, not per element; each element is meant to carry them all. */
#include "uam_codec.h"
