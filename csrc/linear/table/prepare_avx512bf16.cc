#include "linear/table/prepare_avx512.cc"
