#include "linear/table/rowwise_avx512.cc"
