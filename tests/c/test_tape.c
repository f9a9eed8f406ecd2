/* test_tape.c - tapes of several values, their bound, and the sections of messages. Single values: test_vectors.c. */
#include "check.h"
#include "uam_codec.h"

static void test_many(void) {
  static const uint8_t values[] = {0x52, 5, 0xa1, 2, 'h', 'i', 0x45, 0x51, 0xff};
  static const uint64_t want[] = {5u << 8 | 4, 2u << 8 | 19, 4, 21, (uint64_t)0x7fffffff << 8 | 5};
  uint64_t words[8];
  for (size_t cap = 0; cap <= 8; cap++) {
    for (size_t i = 0; i < 8; i++) words[i] = 99;
    CHECK(uam_tape(values, sizeof values, words, cap) == 5);
    for (size_t i = 0; i < 8; i++) {
      if (words[i] != (i < cap && i < 5 ? want[i] : 99))
        FAIL("word %zu of %zu is %llx", i, cap, (unsigned long long)words[i]);
    }
  }
  CHECK(uam_tape(values, sizeof values - 1, words, 8) == UAM_ERR_DECODE);
  CHECK(uam_tape(NULL, 0, NULL, 0) == 0);
  static const uint8_t bare[] = {0xe0, 1, 0}; /* an empty array without even a constructor */
  CHECK(uam_tape(bare, sizeof bare, words, 8) == 2 && words[0] == 23 && words[1] == 0x40);
}

/* Elements without bytes: as many as UAM_MAX_ITEMS in all, however they are spread. */
static void test_bound(void) {
  static uint8_t b[1000];
  size_t n = 0;
  for (; n + 10 <= sizeof b; n += 10) {
    memcpy(b + n, "\xf0\0\0\0\5\0\0\0\0\x44", 10);
    store_be32(b + n + 5, UAM_MAX_ITEMS);
  }
  CHECK(uam_tape(b, 10, NULL, 0) == 2 * (int64_t)UAM_MAX_ITEMS + 2);
  CHECK(uam_tape(b, 20, NULL, 0) == UAM_ERR_DECODE);
  CHECK(uam_tape(b, n, NULL, 0) == UAM_ERR_DECODE);
  memset(b, 0x44, sizeof b);
  CHECK(uam_tape(b, sizeof b, NULL, 0) == 2 * sizeof b);
}

static void test_sections(void) {
  static const uint8_t message[] = {
      0x00, 0x53, 0x70, 0x45,                                                /* header */
      0x00, 0x80, 0,    0,    0,    0,   0,    0,   0,   0x73, 0xc0, 1,   0, /* properties, wide */
      0x00, 0xa3, 16,   'a',  'm',  'q', 'p',  ':', 'd', 'a',  't',  'a', ':',
      'b',  'i',  'n',  'a',  'r',  'y', 0xa0, 1,   7, /* data by symbol */
      0x00, 0xa1, 1,    'x',  0x40,                    /* not known */
      0x00, 0x53, 0x99, 0x41};                         /* not known either */
  static const uint64_t want[] = {0x70, 3, 1, 0, 0x73, 14, 3, 4, 0x75, 36, 3, 17, 0, 43, 1, 39, 0x99, 47, 1, 44};
  uint64_t rows[20];
  CHECK(uam_sections(message, sizeof message, rows, 20) == 20);
  CHECK(memcmp(rows, want, sizeof want) == 0);
  rows[4] = 1;
  CHECK(uam_sections(message, sizeof message, rows, 4) == 20 && rows[4] == 1 && rows[3] == 0);
  CHECK(uam_sections(message, 0, NULL, 0) == 0);
  static const size_t borders[] = {4, 17, 39, 44};
  for (size_t n = 1, k = 0; n < sizeof message; n++) {
    bool border = k < 4 && n == borders[k];
    if (border) k++;
    CHECK(uam_sections(message, n, rows, 20) == (border ? (int64_t)k * 4 : UAM_ERR_DECODE));
  }
  CHECK(uam_sections((const uint8_t *)"\x45", 1, rows, 20) == UAM_ERR_DECODE);
}

static int check_of(const char *hex) {
  uint8_t message[64];
  size_t n = 0;
  for (; hex[2 * n] != 0; n++) {
    char byte[3] = {hex[2 * n], hex[2 * n + 1], 0};
    message[n] = (uint8_t)strtoul(byte, NULL, 16);
  }
  return uam_message_check(message, n);
}

static void test_message_check(void) {
  static const char *const good[] = {"",
                                     "005375a00161",
                                     "005375a00161005375b00000000162", /* two data sections */
                                     "00537540",                       /* null in place of binary */
                                     "0053764500537640",               /* two sequences, one of them null */
                                     "00537700a301785405",             /* any value, described too */
                                     "005370c006044140520540",         /* durable, null, ttl, null */
                                     "005378c10402544140005375a000005373c00702a10169a00175"}; /* in another order */
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    if (check_of(good[i]) != 0) FAIL("%s is no message", good[i]);
  }
  static const char *const bad[] = {"005375a001",   /* cut off */
                                    "00a10178a000", /* an unknown descriptor, as the body or anywhere */
                                    "005375a000005379a000",
                                    "00537045"
                                    "00537045"
                                    "005375a000", /* a section twice */
                                    "00537740"
                                    "00537740",
                                    "005375a000"
                                    "00537740",     /* two kinds of body */
                                    "005375a10161", /* a string in a data section */
                                    "00537654",
                                    "0053765405",
                                    "005374c003015401", /* a list in place of a map, and the reverse */
                                    "005373c103024040",
                                    "005374c1050245a10161", /* a list as key */
                                    "005370c003015405",     /* durable is no boolean */
                                    "005370c00403404045",   /* ttl is a list */
                                    "005373c0050240c10100", /* user-id is a map */
                                    "00537300a3017840"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    if (check_of(bad[i]) != UAM_ERR_DECODE) FAIL("%s is a message", bad[i]);
  }
}

int main(void) {
  test_many();
  test_bound();
  test_sections();
  test_message_check();
  return done("tape");
}
