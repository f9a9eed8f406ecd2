/* trace.c - frames as text and back: the notation of traces, of `decode` and of the transcripts. No engine needed.
 *
 * One line is one frame or protocol header.
 *
 *   AMQP 0.1.0.0                     protocol header: id, major, minor, revision; id 3 is called SASL, id 2 TLS,
 *                                    every other AMQP
 *   ch=0 empty                       a frame without body (heartbeat)
 *   ch=0 open(container-id="x" max-frame-size=65536 properties={:a="b"})
 *   ch=1 transfer(handle=0 delivery-id=0 delivery-tag=h'01000000' settled=false) payload=h'00537540'
 *   sasl-init(mechanism=:PLAIN initial-response=h'0061006200')
 *   raw h'0000000502000000'          these bytes as they are: whatever is not a well-formed frame
 *
 * A frame is [type=N] [ch=N] [ext=h'..'] BODY [PAYLOAD]. Left out: type is 1 for a body sasl-..., else 0; ch is 0; ext
 * (extended header) is empty. ch is always printed for type 0. BODY is `empty` or one value. Blanks and commas separate,
 * in any number; dumping writes single blanks.
 *
 *   payload=h'..'                    the bytes behind the performative
 *   payload=120B                     the same without secrets; read back as 120 zero bytes
 *   payload=(VALUE VALUE ...)        read only: encoded values, such as (properties(to="a") data(h'6869'))
 *   raw 37B                          raw without secrets; read back as zero bytes
 *
 * Composites of performatives.def are name(field=VALUE ...), with the specification's names; what is left out is
 * null, trailing nulls are not encoded. Required fields may be left out and types may be wrong: no check is made. The other
 * message sections are name(VALUE): delivery-annotations, message-annotations, application-properties, data,
 * amqp-sequence, amqp-value, footer.
 *
 * Values:
 *   null true false
 *   5u8 5u16 5u32 5u64               ubyte ushort uint ulong; decimal or 0x hexadecimal
 *   -5i8 -5i16 -5i32 -5i64           byte short int long
 *   5                                in a composite's field whose type is ubyte..ulong: that type (anywhere else the
 *                                    suffix is needed); dumping leaves the suffix out just there
 *   float(0x3fc00000) double(0x3ff8000000000000)       the bits
 *   decimal32(h'..') decimal64(h'..') decimal128(h'..') the bytes
 *   char(0x263a) timestamp(-1) uuid(00112233-4455-6677-8899-aabbccddeeff)
 *   "text"                           string; \" \\ \n \r \t \xNN (a byte). Non-ASCII is dumped as \xNN
 *   :amqp:not-found :"with space"    symbol; unquoted it may hold letters, digits and - _ . : / + * $ @ # %
 *   h'00ff'                          binary; blanks between digits may be read
 *   (5 bytes)                        binary without secrets (SASL responses and challenges); read back as zero bytes
 *   [VALUE VALUE]                    list
 *   {VALUE=VALUE VALUE=VALUE}        map, in the order of the wire
 *   @[VALUE VALUE]                   array: elements of one type (or all described by the same descriptor);
 *   @symbol[]                        an empty one names its element type: @uint[] @string[] @list[] ...
 *   described(VALUE VALUE)           descriptor, value; for descriptors that have no name
 *   enc(h'5205')                     read only: encoded bytes put in place as they are (other widths, malformed ones)
 *
 * Reading gives the smallest encodings. So dump(undump(t)) gives t for every t that dump can give, and undump(dump(b)) is b
 * for every frame b that uses the smallest encodings, no trailing nulls and ulong descriptors. */
#include "uam_codec.h"
