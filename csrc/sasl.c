/* sasl.c - the security layer (§5.3), both roles: header exchange, mechanisms, init, challenges, outcome. Stands between
 * the transport and the AMQP header; conn.c hands over when the SASL header arrives and takes back after the outcome.
 * What a mechanism means is decided above (PLAIN's response arrives here ready made, the server's user list is Python's). */
#include <stdio.h>

#include "uam_int.h"

/* How far the exchange is: mechanisms, then init, then any number of challenges and responses, then the outcome. */
enum { STEP_OFFER = 0, STEP_ASKED = 1, STEP_CHALLENGED = 2 };

void uam_sasl_start(uam_engine *e) {
  if (e->sasl.stage != UAM_SASL_WANT || e->sasl.header_sent || e->role != UAM_CLIENT) return;
  e->sasl.header_sent = true;
  uam_frame_header(e, 3);
}

static uam_span span_of(const uam_buf *b) { return uam_buf_span(b); }

/* Server: the mechanisms as an array of symbols (§5.3.3.1). */
static void put_mechanisms(uam_engine *e) {
  uam_span names = span_of(&e->sasl.mechanism);
  uint8_t array[600];
  uam_writer w = {array + 4, 0, sizeof array - 4};
  uint8_t count = 0;
  for (size_t i = 0; i < names.len;) {
    size_t n = 0;
    while (i + n < names.len && names.ptr[i + n] != ' ') n++;
    uint8_t len = (uint8_t)n;
    if (n > 0) {
      uam_write_raw(&w, &len, 1);
      uam_write_raw(&w, names.ptr + i, n);
      count++;
    }
    i += n + 1;
  }
  array[0] = 0xe0;
  array[1] = (uint8_t)(w.len + 2);
  array[2] = count;
  array[3] = 0xa3;
  uam_p_sasl_mechanisms m = {.set = UAM_SET(sasl_mechanisms, sasl_server_mechanisms)};
  m.sasl_server_mechanisms = (uam_span){array, w.len + 4};
  uam_frame_put(e, 1, 0, UAM_COMPOSITE_sasl_mechanisms, &m);
}

void uam_sasl_header(uam_engine *e) {
  e->sasl.stage = UAM_SASL_RUNNING;
  e->in.stage = UAM_IN_SASL;
  if (e->role == UAM_CLIENT) {
    if (!e->sasl.header_sent) uam_frame_header(e, 3); /* the peer was quicker */
    e->sasl.header_sent = true;
    return;
  }
  e->sasl.header_sent = true;
  uam_frame_header(e, 3);
  put_mechanisms(e);
}

/* Is `name` one of the symbols of this value: a single symbol or an array of them? */
static bool offered(uam_span value, uam_span name) {
  uam_reader r = uam_reader_of(value.ptr, value.len);
  if (value.len > 0 && (value.ptr[0] == 0xa3 || value.ptr[0] == 0xb3)) {
    uam_span one = uam_read_symbol(&r);
    return !r.err && one.len == name.len && memcmp(one.ptr, name.ptr, name.len) == 0;
  }
  bool wide = value.len > 0 && value.ptr[0] == 0xf0;
  if (value.len < (wide ? 10u : 4u) || (!wide && value.ptr[0] != 0xe0)) return false;
  uint32_t count = wide ? load_be32(value.ptr + 5) : value.ptr[2];
  size_t at = wide ? 10 : 4;
  bool wide_items = value.ptr[at - 1] == 0xb3;
  for (uint32_t i = 0; i < count; i++) {
    size_t head = wide_items ? 4 : 1;
    if (value.len - at < head) return false;
    size_t n = wide_items ? load_be32(value.ptr + at) : value.ptr[at];
    at += head;
    if (value.len - at < n) return false;
    if (n == name.len && memcmp(value.ptr + at, name.ptr, n) == 0) return true;
    at += n;
  }
  return false;
}

static void on_mechanisms(uam_engine *e, const uam_p_sasl_mechanisms *p, uam_event *ev) {
  uam_span name = span_of(&e->sasl.mechanism);
  if (!offered(p->sasl_server_mechanisms, name)) {
    if (ev != NULL) ev->flags = (uint16_t)(ev->flags | UAM_FLAG_NOT_OFFERED);
    char text[160];
    snprintf(text, sizeof text, "the server does not offer SASL mechanism %.*s", (int)(name.len < 60 ? name.len : 60),
             (const char *)name.ptr);
    uam_conn_fail(e, "amqp:unauthorized-access", text);
    return;
  }
  e->sasl.step = STEP_ASKED;
  uam_p_sasl_init init = {.set = UAM_SET(sasl_init, mechanism), .mechanism = name};
  if (e->sasl.has_response) {
    init.set |= UAM_SET(sasl_init, initial_response);
    init.initial_response = span_of(&e->sasl.response);
  }
  if (uam_buf_len(&e->sasl.hostname) > 0) {
    init.set |= UAM_SET(sasl_init, hostname);
    init.hostname = span_of(&e->sasl.hostname);
  }
  uam_frame_put(e, 1, 0, UAM_COMPOSITE_sasl_init, &init);
}

static void on_outcome(uam_engine *e, const uam_p_sasl_outcome *p, uam_event *ev) {
  if (ev != NULL) ev->code = p->code;
  uam_buf_free(&e->sasl.response, &e->mem); /* a password has no business here any more */
  if (p->code != 0) {
    char text[80];
    snprintf(text, sizeof text, "SASL outcome %u", (unsigned)p->code);
    uam_conn_fail(e, "amqp:unauthorized-access", text);
    return;
  }
  e->sasl.stage = UAM_SASL_DONE;
  e->in.stage = UAM_IN_HEADER;
}

static uint16_t event_of(uint32_t code) {
  switch (code) {
    case UAM_COMPOSITE_sasl_mechanisms: return UAM_EVENT_SASL_MECHANISMS;
    case UAM_COMPOSITE_sasl_init: return UAM_EVENT_SASL_INIT;
    case UAM_COMPOSITE_sasl_challenge: return UAM_EVENT_SASL_CHALLENGE;
    case UAM_COMPOSITE_sasl_response: return UAM_EVENT_SASL_RESPONSE;
    default: return UAM_EVENT_SASL_OUTCOME;
  }
}

/* Is this frame the peer's to send now (§5.3.2)? */
static bool due(const uam_engine *e, uint64_t code) {
  bool client = e->role == UAM_CLIENT;
  switch (code) {
    case UAM_COMPOSITE_sasl_mechanisms: return client && e->sasl.step == STEP_OFFER;
    case UAM_COMPOSITE_sasl_challenge:
    case UAM_COMPOSITE_sasl_outcome: return client && e->sasl.step == STEP_ASKED;
    case UAM_COMPOSITE_sasl_init: return !client && e->sasl.step == STEP_OFFER;
    case UAM_COMPOSITE_sasl_response: return !client && e->sasl.step == STEP_CHALLENGED;
    default: return false;
  }
}

void uam_sasl_frame(uam_engine *e, const uam_frame *f) {
  uam_fault fault = {0};
  uam_any any;
  uam_reader r = uam_reader_of(f->body.ptr, f->body.len);
  uint64_t code = uam_read_descriptor(&r);
  uam_span list = uam_read_value(&r);
  if (r.err || f->type != 1 || !due(e, code)) {
    uam_conn_fail(e, "amqp:decode-error", "not a SASL frame that is due");
    return;
  }
  if (uam_composite_decode((uint32_t)code, list, &any, &fault) != 0) {
    uam_conn_fail(e, fault.condition, fault.text);
    return;
  }
  uam_event *ev = uam_event_push(e, event_of((uint32_t)code), 0);
  uam_event_window(e, ev, list);
  if (e->role == UAM_SERVER) e->sasl.step = STEP_ASKED;
  if (code == UAM_COMPOSITE_sasl_mechanisms) on_mechanisms(e, &any.sasl_mechanisms, ev);
  else if (code == UAM_COMPOSITE_sasl_outcome) on_outcome(e, &any.sasl_outcome, ev);
}

/* ---- public ---- */
static int fresh(uam_engine *e) {
  if (e->fatal) return e->fatal;
  if (e->conn.header_sent || e->sasl.header_sent || e->sasl.stage == UAM_SASL_RUNNING ||
      e->conn.state != UAM_CONN_START)
    return uam_refuse(e, UAM_ERR_STATE, "SASL is chosen before the first byte");
  return UAM_OK;
}

int uam_sasl_client(uam_engine *e, const char *mechanism, const uint8_t *response, size_t n, int has_response,
                    const char *hostname) {
  int rc = fresh(e);
  if (rc != UAM_OK) return rc;
  size_t len = strlen(mechanism);
  if (e->role != UAM_CLIENT || len == 0 || len > 255)
    return uam_refuse(e, UAM_ERR_ARG, "no SASL mechanism for a client");
  e->sasl.stage = UAM_SASL_WANT;
  e->sasl.has_response = has_response != 0;
  uam_keep(e, &e->sasl.mechanism, mechanism, len);
  uam_keep(e, &e->sasl.response, response, n);
  if (hostname != NULL) uam_keep(e, &e->sasl.hostname, hostname, strlen(hostname));
  return e->fatal;
}

int uam_sasl_server(uam_engine *e, const char *mechanisms) {
  int rc = fresh(e);
  if (rc != UAM_OK) return rc;
  size_t len = strlen(mechanisms);
  if (e->role != UAM_SERVER || len == 0 || len > 240)
    return uam_refuse(e, UAM_ERR_ARG, "no SASL mechanisms for a server");
  e->sasl.stage = UAM_SASL_WANT;
  uam_keep(e, &e->sasl.mechanism, mechanisms, len);
  return e->fatal;
}

static int running(uam_engine *e, int role) {
  if (e->fatal) return e->fatal;
  if (e->role != role || e->sasl.stage != UAM_SASL_RUNNING || e->sasl.step != STEP_ASKED ||
      e->conn.state == UAM_CONN_END)
    return uam_refuse(e, UAM_ERR_STATE, "no SASL exchange is going on");
  return UAM_OK;
}

int uam_sasl_challenge(uam_engine *e, const uint8_t *data, size_t n) {
  int rc = running(e, UAM_SERVER);
  if (rc != UAM_OK) return rc;
  e->sasl.step = STEP_CHALLENGED;
  uam_p_sasl_challenge p = {.set = UAM_SET(sasl_challenge, challenge), .challenge = {data, n}};
  uam_frame_put(e, 1, 0, UAM_COMPOSITE_sasl_challenge, &p);
  return e->fatal;
}

int uam_sasl_response(uam_engine *e, const uint8_t *data, size_t n) {
  int rc = running(e, UAM_CLIENT);
  if (rc != UAM_OK) return rc;
  uam_p_sasl_response p = {.set = UAM_SET(sasl_response, response), .response = {data, n}};
  uam_frame_put(e, 1, 0, UAM_COMPOSITE_sasl_response, &p);
  return e->fatal;
}

int uam_sasl_outcome(uam_engine *e, int code) {
  int rc = running(e, UAM_SERVER);
  if (rc != UAM_OK) return rc;
  if (code < 0 || code > 4) return uam_refuse(e, UAM_ERR_ARG, "SASL outcome %d", code);
  uam_p_sasl_outcome p = {.set = UAM_SET(sasl_outcome, code), .code = (uint8_t)code};
  uam_frame_put(e, 1, 0, UAM_COMPOSITE_sasl_outcome, &p);
  if (code == 0) {
    e->sasl.stage = UAM_SASL_DONE;
    e->in.stage = UAM_IN_HEADER;
  } else {
    uam_conn_fail(e, "amqp:unauthorized-access", "the client was refused");
  }
  return e->fatal;
}
